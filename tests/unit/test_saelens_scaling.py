"""Files of SAELens whose activations are scaled: folded as at the end of training, or warned of."""

import json

import pytest
import torch
from foreign_for_tests import read_saelens, same
from saelens_files_for_tests import D_IN, NEW, OLD, inputs, pre_activations, tensors, top, written
from safetensors.torch import save_file
from torch.nn.functional import normalize

from visae import cli
from visae.errors import ModelError
from visae.sae import load_sae

SCALED = {"normalize_activations": "expected_average_only_in"}
FACTOR = 0.4


@pytest.mark.parametrize("age", ["6", "5", "2"])
@pytest.mark.parametrize("rule", ["relu", "topk", "jumprelu", "batchtopk-rescaled"])
def test_scaling_that_is_not_folded_yet_is_folded_as_at_the_end_of_training(age, rule, tmp_path):
    architecture = {"relu": "standard", "batchtopk-rescaled": "batchtopk"}.get(rule, rule)
    weights, x = tensors(architecture), inputs()
    config = {**(NEW if age == "6" else OLD), **SCALED, "architecture": architecture}
    if architecture in ("topk", "batchtopk"):
        config |= {"k": 4, "rescale_acts_by_decoder_norm": "rescaled" in rule}
        config.pop("activation_fn_str", None)
    if age == "2":
        config["normalize_activations"] = True
    folder = written(tmp_path / "checkpoint", config, weights)
    if age == "6":
        (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": FACTOR, "has_whitening": False}))
    else:
        state = {"n_dataset_processed": torch.tensor(3), "estimated_norm_scaling_factor": torch.tensor(FACTOR)}
        save_file(state, folder / "activations_store_state.safetensors")
    pre = pre_activations(weights, FACTOR * x)
    codes = {
        "relu": pre.relu(),
        "topk": top(pre, 4),
        "jumprelu": pre.relu() * (pre > weights.get("threshold", 0.0)),
        "batchtopk-rescaled": pre * (2 * pre > 1.5),
    }[rule]
    given = read_saelens(folder)
    assert same(given.sae(x), (codes @ weights["W_dec"] + weights["b_dec"]) / FACTOR)
    assert [notice.level for notice in given.notices if "0.4" in notice.text] == ["note"]
    assert not [notice for notice in given.notices if notice.level == "warning"]
    # The very codes of the file that SAELens writes once it has folded.
    folded = weights | {"W_enc": weights["W_enc"] * FACTOR}
    folded |= {name: weights[name] / FACTOR for name in ("W_dec", "b_dec")}
    if architecture == "batchtopk":
        folded["topk_threshold"] = weights["topk_threshold"] / FACTOR
    after = written(tmp_path / "folded", {**config, "normalize_activations": "none"}, folded)
    assert same(given.sae.encode(x), read_saelens(after).sae.encode(x))
    assert int((given.sae.encode(x) > 0).sum()) > 100


def test_scaling_of_which_nothing_proves_that_it_is_folded_is_warned_of_and_kept(tmp_path, caplog):
    folder = written(tmp_path / "sae", {**OLD, **SCALED}, tensors())
    arguments = ["import-sae", "--source", str(folder)]
    with caplog.at_level("WARNING"):
        cli.main([*arguments, "--output", str(tmp_path / "out")])
    (warning,) = [record.getMessage() for record in caplog.records if "expected_average_only_in" in record.getMessage()]
    assert "nothing beside it proves that this scaling has been folded" in warning
    kept = json.loads((tmp_path / "out/config.json").read_text())["notices"]
    assert [notice["level"] for notice in kept] == ["note", "warning"]
    assert "model_name a-vit, hook_name blocks.3.hook_resid_post, hook_layer 3" in kept[0]["text"]
    # Said by hand: nothing is left to warn of, and what it gives is that of the scaled activations.
    said = tmp_path / "normalization.json"
    said.write_text(json.dumps({"mean": [0.0] * D_IN, "scale": 1 / FACTOR}))
    cli.main([*arguments, "--output", str(tmp_path / "scaled"), "--normalization", str(said)])
    kept = json.loads((tmp_path / "scaled/config.json").read_text())["notices"]
    assert [notice["level"] for notice in kept] == ["note"]
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": FACTOR}))
    cli.main([*arguments, "--output", str(tmp_path / "found")])
    x = inputs()
    assert same(load_sae(tmp_path / "scaled/config.json")(x), load_sae(tmp_path / "found/config.json")(x))
    with pytest.raises(SystemExit, match=r"activation_scaler\.json: already says by what activations are scaled"):
        cli.main([*arguments, "--output", str(tmp_path / "both"), "--normalization", str(said)])


def test_a_finished_decoder_of_unit_norm_is_told_of_where_scaling_was_folded_before(tmp_path):
    weights = tensors()
    unit = weights | {"W_dec": normalize(weights["W_dec"])}
    for number, (config, given, is_told) in enumerate([(OLD, unit, True), (OLD, weights, False), (NEW, unit, False)]):
        folder = written(tmp_path / str(number), {**config, **SCALED}, given)
        (warning,) = [notice for notice in read_saelens(folder).notices if notice.level == "warning"]
        assert ("divide W_dec by the root of d_in" in warning.text) == is_told


@pytest.mark.parametrize(
    ("scaler", "said", "message"),
    [
        ({"scaling_factor": FACTOR}, "none", "activation_scaler.json: 0.4, and cfg.json says .*: none"),
        ({"scaling_factor": -1.0}, "expected_average_only_in", "a factor of -1.0; allowed: a number above 0"),
        ({"scaling_factor": "0.4"}, "expected_average_only_in", "a factor of '0.4'; allowed"),
        ({"scaling_factor": FACTOR, "has_whitening": True}, "expected_average_only_in", "has_whitening: true"),
        ({"scaling_factor": FACTOR, "mean": [1.0]}, "expected_average_only_in", "unknown keys: mean; allowed"),
        ({}, "expected_average_only_in", "'scaling_factor' is missing"),
        ([], "expected_average_only_in", "'scaling_factor' is missing"),
    ],
)
def test_a_scaler_that_does_not_fit_is_refused(scaler, said, message, tmp_path):
    folder = written(tmp_path, {**NEW, "normalize_activations": said}, tensors())
    (folder / "activation_scaler.json").write_text(json.dumps(scaler))
    with pytest.raises(ModelError, match=message):
        read_saelens(folder)
