"""SAEs in other projects' files: what they compute there, they compute here."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from peers_for_tests import run_peer
from sae_variants import CASES, D_MODEL, planted, trained
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from visae import cli
from visae.activations.given import write_store
from visae.config.settings import JumpReluSettings, ReluSettings, TopKSettings
from visae.errors import ModelError
from visae.sae import load_sae, save_sae
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.saelens import write_saelens
from visae.sae.foreign.transfer import import_sae
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.trainer import train

SCRIPT = Path(__file__).with_name("saelens_for_tests.py")
# By which the script scales activations where training would.
FACTOR = 0.2
SHARED = {"expansion": 6, "steps": 200, "batch_size": 256, "learning_rate": 5e-3}
TRANSCODERS = {
    "transcoder-relu": ReluSettings(variant="relu", **SHARED),
    "transcoder-jumprelu": JumpReluSettings(variant="jumprelu", **SHARED),
}
MADE = [
    f"{architecture}{end}"
    for architecture in (
        *("standard", "jumprelu", "gated", "topk", "topk-rescaled", "batchtopk", "batchtopk-rescaled"),
        *("matryoshka", "matryoshka-rescaled"),
    )
    for end in ("", "-plain")
]


MADE_BY_TRAINING = ["standard", "gated", "jumprelu", "topk", "batchtopk", "matryoshka"]
ACROSS = ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]


def read_saelens(folder):
    return read_foreign(folder, Unsaid(as_="saelens")).given


def read_saev(path, decoder_bias=None):
    return read_foreign(path, Unsaid(decoder_bias=decoder_bias)).given


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def data():
    return planted(4000, seed=1, scale=3.0, shift=5.0)


@pytest.fixture(scope="module")
def exported(data):
    """Trained SAEs by name: each variant, and transcoders."""
    target = torch.tanh(data @ torch.randn(D_MODEL, 10, generator=torch.Generator().manual_seed(7)) / 20) * 40 - 7
    saes = {case.name: trained(case.settings, 30, data).sae for case in CASES}
    return saes | {name: trained(settings, 30, data, target).sae for name, settings in TRANSCODERS.items()}


@pytest.fixture(scope="module")
def compared(exported, data, tmp_path_factory):
    """Folder in which SAELens has computed what it makes of our SAEs and of its own."""
    root = tmp_path_factory.mktemp("saelens")
    for name, sae in exported.items():
        write_saelens(sae, root / "exported" / name)
    save_file({"inputs": data[:500].contiguous()}, root / "inputs.safetensors")
    run_peer("saelens", SCRIPT, root, FACTOR)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(case.name for case in CASES), *TRANSCODERS])
def test_saelens_computes_from_our_export_what_we_do(name, compared, exported, data):
    sae, found = exported[name], load_file(compared / "exported" / name / "found.safetensors")
    codes = sae.encode(data[:500]).detach()
    assert int((codes > 0).sum()) > 100
    assert relative_error(found["codes"], codes) < 1e-5
    assert relative_error(found["output"], sae(data[:500]).detach()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in ("made", "scaled", "standardized") for name in MADE),
        *(("trained", name) for name in (*MADE_BY_TRAINING, "layer_norm")),
        *(("across", f"{name}{end}") for name in ACROSS for end in ("", "-layer_norm")),
    ],
)
def test_we_compute_from_saelens_files_what_it_does(name, kind, compared, data):
    folder = compared / kind / name
    sae, found = read_saelens(folder).sae, load_file(folder / "found.safetensors")
    codes = sae.encode(data[:500])
    assert int((codes > 0).sum()) > 100
    assert relative_error(codes, found["codes"]) < 1e-5
    assert relative_error(sae(data[:500]), found["output"]) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_export_and_import_give_the_same_function_of_raw_activations(case, exported, data, tmp_path):
    sae = exported[case.name]
    save_sae(sae, tmp_path / "ours")
    cli.main(["export-sae", "--config", str(tmp_path / "ours/config.json"), "--output", str(tmp_path / "theirs")])
    cli.main(["import-sae", "--source", str(tmp_path / "theirs"), "--output", str(tmp_path / "back")])
    back = load_sae(tmp_path / "back/config.json")
    assert int((sae.encode(data) > 0).sum()) > 1000
    assert relative_error(back.encode(data), sae.encode(data).detach()) < 1e-5
    assert relative_error(back(data), sae(data).detach()) < 1e-5
    imported = json.loads((tmp_path / "back/config.json").read_text())["imported"]
    assert imported["path"] == str(tmp_path / "theirs")
    assert imported["format"] == "saelens"


def test_what_saelens_cannot_hold_is_refused_by_its_key(data, tmp_path):
    clamped = TopKSettings(variant="topk", k=3, clamp=3.0, **SHARED)
    with pytest.raises(ModelError, match="clamp: 3: SAELens has no clamping"):
        write_saelens(trained(clamped, 1, data).sae, tmp_path / "clamped")
    each = trained(TopKSettings(variant="topk", k=3, normalization="per_token", **SHARED), 1, data).sae
    each.eps.fill_(1e-3)
    with pytest.raises(ModelError, match=r"per_token with eps 0\.001: SAELens' layer_norm has 1e-05"):
        write_saelens(each, tmp_path / "eps")
    topk = TopKSettings(variant="topk", k=3, **SHARED)
    with pytest.raises(ModelError, match="variant topk: SAELens has transcoders of relu and jumprelu alone"):
        write_saelens(trained(topk, 1, data, data[:, :5]).sae, tmp_path / "transcoder")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "architecture",
            "temporal",
            "architecture: 'temporal'; allowed: standard, topk, jumprelu, gated, batchtopk, matryoshka_batchtopk",
        ),
        ("normalize_activations", "whitening", "normalize_activations: 'whitening'; allowed: none"),
        ("reshape_activations", "hook_z", "reshape_activations: 'hook_z'; allowed: none"),
        ("architecture", "gated", "'b_gate', 'b_mag', 'r_mag' are missing for architecture gated"),
    ],
)
def test_what_cannot_be_kept_of_saelens_is_refused_by_its_key(key, value, message, exported, tmp_path):
    path = write_saelens(exported["relu"], tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelError, match=message):
        read_saelens(tmp_path)


def test_missing_and_damaged_files_of_saelens_are_named(exported, tmp_path):
    with pytest.raises(ModelError, match=r"no weights in it \(there is nothing\)"):
        read_saelens(tmp_path)
    write_saelens(exported["relu"], tmp_path)
    config = (tmp_path / "cfg.json").read_bytes()
    (tmp_path / "cfg.json").unlink()
    with pytest.raises(ModelError, match=r"cfg\.json: no such file"):
        read_saelens(tmp_path)
    (tmp_path / "cfg.json").write_bytes(config)
    (tmp_path / "sae_weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"sae_weights\.safetensors: damaged, or no safetensors file"):
        read_saelens(tmp_path)


def write_saev(path, header, threshold=None, d_model=6, width=24, **changed):
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "W_enc": torch.randn(d_model, width, generator=generator),
        "b_enc": torch.randn(width, generator=generator),
        "W_dec": normalize(torch.randn(width, d_model, generator=generator)),
        "b_dec": torch.randn(d_model, generator=generator),
    }
    more = {} if threshold is None else {"activation.threshold": torch.tensor(threshold)}
    with path.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        kept = {name: tensor for name, tensor in (tensors | more | changed).items() if tensor is not None}
        torch.save(kept, file)
    return tensors


# saev 0.1.0's SparseAutoencoder settings.
OLD = {"d_vit": 6, "exp_factor": 4, "sparsity_coeff": 4e-4, "n_reinit_samples": 1, "ghost_grads": False, "seed": 0}
SIZES = {1: {"d_vit": 6, "exp_factor": 4}, 2: {"d_vit": 6, "exp_factor": 4}, 5: {"d_model": 6, "d_sae": 24}}
# What schema 5 keeps beside top_k.
NESTED = {
    "sparsity": {"cls": "NoSparsity", "params": {"key": "no-sparsity"}},
    "aux": {"cls": "AuxK", "params": {"key": "auxk", "k_aux": 512, "alpha": 1 / 32}},
}


def schema(number, cls, **params):
    return {"schema": number, "cfg": {**SIZES.get(number, SIZES[5]), "activation": {"cls": cls, "params": params}}}


def first_schema(cls, **params):
    return {"schema": 1, "cls": cls, "cfg": {**SIZES[1], **params}}


@pytest.mark.parametrize(
    ("header", "rule", "options"),
    [
        (OLD, "relu of the difference", {}),
        (first_schema("Relu"), "relu", {"decoder_bias": "not-subtracted"}),
        (first_schema("Relu"), "relu of the difference", {"decoder_bias": "subtracted"}),
        (first_schema("TopK", top_k=3), "top 3", {"decoder_bias": "not-subtracted"}),
        (schema(1, "TopK", top_k=3), "top 3", {"decoder_bias": "not-subtracted"}),
        (schema(2, "Relu"), "relu", {}),
        (schema(2, "TopK", top_k=3), "top 3", {}),
        (schema(2, "BatchTopK", top_k=3), "top 3", {}),
        (schema(3, "TopK", top_k=3), "top 3", {}),
        (schema(4, "BatchTopK", top_k=3, momentum=0.1), "above 1.5", {}),
        (schema(5, "Relu", key="relu", sparsity={"cls": "L1Sparsity", "params": {"coeff": 4e-4}}), "relu", {}),
        (schema(5, "TopK", key="top-k", top_k=3, **NESTED), "top 3", {}),
        (schema(5, "BatchTopK", key="batch-top-k", top_k=3, momentum=0.1, **NESTED), "above 1.5", {}),
        (schema(5, "BatchTopK", key="batch-top-k", top_k=3, momentum=0.1, **NESTED), "above -0.5", {}),
    ],
    ids=str,
)
def test_saevs_checkpoints_compute_what_saev_does(header, rule, options, tmp_path):
    kind, _, number = rule.partition(" ")
    threshold = float(number) if kind == "above" else None
    tensors = write_saev(tmp_path / "sae.pt", header, threshold)
    inputs = torch.randn(100, 6, generator=torch.Generator().manual_seed(5))
    shifted = inputs - tensors["b_dec"] if "difference" in rule else inputs
    pre = shifted @ tensors["W_enc"] + tensors["b_enc"]
    codes = pre.relu()
    if kind == "top":
        codes = torch.zeros_like(pre).scatter(1, pre.topk(3).indices, pre.topk(3).values)
        assert float(codes.min()) == 0  # else saev would keep what TopK cuts
    elif threshold is not None:
        codes = pre * (pre > max(threshold, 0.0))
    sae = read_saev(tmp_path / "sae.pt", **options).sae
    assert relative_error(sae.encode(inputs), codes) < 1e-6
    assert relative_error(sae(inputs), codes @ tensors["W_dec"] + tensors["b_dec"]) < 1e-6
    assert relative_error(sae.decode(sae.sparse_codes(inputs)), codes @ tensors["W_dec"] + tensors["b_dec"]) < 1e-6


def test_normalization_of_elsewhere_becomes_part_of_the_sae(tmp_path):
    tensors = write_saev(tmp_path / "sae.pt", OLD)
    mean = torch.linspace(-3, 3, 6)
    (tmp_path / "normalization.json").write_text(json.dumps({"mean": mean.tolist(), "scale": 2.5}))
    said = Unsaid(normalization=tmp_path / "normalization.json")
    import_sae(tmp_path / "sae.pt", tmp_path / "out", said)
    sae = load_sae(tmp_path / "out/config.json")
    inputs = torch.randn(100, 6, generator=torch.Generator().manual_seed(5)) * 4
    codes = ((((inputs - mean) / 2.5) - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]).relu()
    assert relative_error(sae(inputs), (codes @ tensors["W_dec"] + tensors["b_dec"]) * 2.5 + mean) < 1e-6
    for wrong in ({"mean": [1.0], "scale": 1.0}, {"mean": mean.tolist(), "scale": 0.0}, {"mean": mean.tolist()}):
        (tmp_path / "normalization.json").write_text(json.dumps(wrong))
        with pytest.raises(ModelError, match=r"normalization\.json: allowed: `mean`, 6 numbers, and `scale`, above 0"):
            import_sae(tmp_path / "sae.pt", tmp_path / "out", said)


def test_an_imported_sae_is_measured_like_one_that_was_trained_on_the_store(tmp_path):
    values = planted(40 * 16, seed=1).view(40, 16, D_MODEL).numpy()
    manifest = write_store(tmp_path / "store", values, list(range(16)), {"train": 30, "val": 10})
    settings = TopKSettings(variant="topk", k=3, **SHARED)
    trained_summary = train(settings, [manifest], tmp_path / "ours", tmp_path / "work", "cpu")
    cli.main(["export-sae", "--config", str(tmp_path / "ours/config.json"), "--output", str(tmp_path / "theirs")])
    arguments = ["--source", str(tmp_path / "theirs"), "--output", str(tmp_path / "back")]
    cli.main(["import-sae", *arguments, "--manifests", str(manifest)])
    summary = json.loads((tmp_path / "back/summary.json").read_text())
    assert set(summary) == set(trained_summary) | {"notices"}
    for name in ("normalized_mse", "explained_variance", "l0", "silent_share", "n_tokens"):
        assert summary[name] == pytest.approx(trained_summary[name], rel=1e-4)
    for name in ("variant", "width", "d_model", "layer", "hook", "measured_on"):
        assert summary[name] == trained_summary[name]
    metrics = pl.read_parquet(tmp_path / "back/metrics.parquet")
    assert metrics.schema == pl.read_parquet(tmp_path / "ours/metrics.parquet").schema
    assert metrics["normalized_mse"].to_list() == [summary["normalized_mse"]]
    other = write_store(tmp_path / "other", values[:, :, :5], list(range(16)), {"train": 30, "val": 10})
    with pytest.raises(
        ModelError,
        match=rf"has activations of 5 numbers, and .*sae_weights.safetensors is for {D_MODEL}; give the store",
    ):
        import_sae(tmp_path / "theirs", tmp_path / "out", manifests=[other])


def test_what_a_file_of_saev_does_not_tell_is_asked_for(tmp_path):
    source = tmp_path / "sae.pt"
    tensors = write_saev(source, first_schema("Relu"))
    with pytest.raises(
        ModelError, match=r"schema: 1: .* say it: --decoder-bias subtracted, or --decoder-bias not-subtracted"
    ):
        read_saev(source)
    arguments = ["import-sae", "--source", str(source), "--output", str(tmp_path / "out")]
    cli.main([*arguments, "--decoder-bias", "subtracted"])
    inputs = torch.randn(50, 6)
    codes = ((inputs - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]).relu()
    assert relative_error(load_sae(tmp_path / "out/config.json").encode(inputs), codes) < 1e-6
    write_saelens(load_sae(tmp_path / "out/config.json"), tmp_path / "saelens")
    with pytest.raises(ModelError, match="--decoder-bias: without effect on a file of saelens"):
        import_sae(tmp_path / "saelens", tmp_path / "out", Unsaid(decoder_bias="not-subtracted"))


@pytest.mark.parametrize(
    ("header", "threshold", "message"),
    [
        (first_schema("BatchTopK", top_k=3), None, "code rule 'BatchTopK' in schema 1; allowed: Relu, TopK"),
        ({"schema": 6, "cfg": {}}, None, r"schema: 6; allowed: none \(saev 0\.1\.0\), 1 to 5"),
        (schema(4, "AbsBatchTopK", top_k=3), None, "code rule 'AbsBatchTopK' in schema 4; allowed: Relu, TopK"),
        (schema(5, "TopK"), None, "not a checkpoint of saev: KeyError: 'top_k'"),
        (schema(5, "TopK", top_k=3), 1.5, "tensors that no TopK SAE of saev has: activation.threshold"),
    ],
    ids=str,
)
def test_files_of_saev_that_are_not_understood_are_refused(header, threshold, message, tmp_path):
    write_saev(tmp_path / "sae.pt", header, threshold)
    with pytest.raises(ModelError, match=message):
        read_saev(tmp_path / "sae.pt", "not-subtracted")


@pytest.mark.parametrize(
    ("header", "changed", "message"),
    [
        (OLD | {"temperature": 2}, {}, "unknown keys: cfg.temperature: no saev up to schema 5 writes them"),
        ({**schema(4, "Relu"), "decoder": "tied"}, {}, "unknown keys: decoder"),
        (schema(5, "TopK", top_k=3, postact="abs"), {}, "unknown keys: cfg.activation.params.postact"),
        (first_schema("Relu", input_norm="layer"), {}, "unknown keys: cfg.input_norm"),
        (schema(5, "TopK", top_k=3.5), {}, "top_k: 3.5; allowed: a whole number from 1 to 24"),
        (OLD | {"exp_factor": 5}, {}, r"W_enc has shape \[6, 24\] where \[6, 30\] belongs"),
        (schema(5, "Relu"), {"W_enc": torch.zeros(24, 6)}, r"W_enc has shape \[24, 6\] where \[6, 24\] .* transposed"),
        (OLD, {"W_dec": torch.full((24, 6), torch.inf)}, "W_dec: 144 of 144 values are NaN or infinite"),
        (OLD, {"b_enc": torch.zeros(24, dtype=torch.int32)}, "b_enc has dtype int32; allowed: float32"),
        (OLD, {"b_gate": torch.zeros(24)}, "tensors that no Relu SAE of saev has: b_gate"),
        (OLD, {"b_dec": None}, "'b_dec' is missing for Relu SAE of saev"),
    ],
    ids=str,
)
def test_keys_and_tensors_that_saev_does_not_write_are_refused_by_name(header, changed, message, tmp_path):
    path = tmp_path / "sae.pt"
    write_saev(path, header, **changed)
    with pytest.raises(ModelError, match=message):
        read_saev(path, "not-subtracted")


def test_a_checkpoint_that_would_run_code_or_is_damaged_is_refused(tmp_path):
    path = tmp_path / "sae.pt"
    with path.open("wb") as file:
        file.write(b"{}\n")
        torch.save({"W_enc": sys.exit}, file)
    with pytest.raises(ModelError, match=r"sae\.pt: holds objects of sys\.exit, and to open it would be to run"):
        read_saev(path)
    write_saev(path, OLD)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match=r"sae\.pt: damaged .*copy it again"):
        read_saev(path)
    path.write_bytes(b"no json\n")
    with pytest.raises(ModelError, match="neither a safetensors file nor one of"):
        read_saev(path)
