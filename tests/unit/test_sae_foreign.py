"""SAEs in SAELens' files: what they compute there, they compute here."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from foreign_for_tests import read_saelens, relative_error
from peers_for_tests import run_peer
from sae_variants import CASES, D_MODEL, planted, trained
from safetensors.torch import load_file, save_file

from visae import cli
from visae.activations.given import write_store
from visae.config.settings import JumpReluSettings, ReluSettings, TopKSettings
from visae.errors import ModelError
from visae.sae import load_sae, save_sae
from visae.sae.foreign.saelens import write_saelens
from visae.sae.foreign.transfer import import_sae
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
