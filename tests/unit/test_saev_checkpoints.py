"""Checkpoints of saev: what they compute there, they compute here, and what is refused of them."""

import json
import sys

import pytest
import torch
from foreign_for_tests import relative_error
from torch.nn.functional import normalize

from visae import cli
from visae.errors import ModelError
from visae.sae import load_sae
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.saelens import write_saelens
from visae.sae.foreign.transfer import import_sae
from visae.sae.foreign.unsaid import Unsaid


def read_saev(path, decoder_bias=None):
    return read_foreign(path, Unsaid(decoder_bias=decoder_bias)).given


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
