"""Files of SAELens of all its ages: each key and tensor is honoured, known to change nothing, or refused by name."""

import json

import pytest
import torch
from foreign_for_tests import read_saelens, same
from saelens_files_for_tests import D_IN, D_SAE, NEW, OLD, inputs, pre_activations, tensors, top, written
from safetensors.torch import load_file

from visae import cli
from visae.activations.given import write_store
from visae.errors import ModelError

TOPK = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
# Settings of a whole run, which stood in cfg.json instead: with other names in sae-lens 2, of which these are some.
RUN = {
    **{key: OLD[key] for key in ("d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "model_name")},
    **{"hook_point": "blocks.3.hook_resid_post", "hook_point_layer": 3, "hook_point_head_index": None},
    **{"activation_fn": "relu", "normalize_activations": False, "normalize_sae_decoder": True, "noise_scale": 0.0},
    **{"from_pretrained_path": None, "use_cached_activations": False, "lr": 3e-4, "l1_coefficient": 1e-3},
    **{"sae_lens_version": "2.1.3", "finetuning_method": None, "tokens_per_buffer": 4096, "wandb_project": "none"},
}


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({**OLD, **TOPK}, "topk"),
        ({**OLD, **TOPK, "architecture": "topk"}, "topk"),
        ({key: value for key, value in {**OLD, **TOPK}.items() if key != "architecture"}, "topk"),
        ({**RUN, "activation_fn": "topk", "activation_fn_kwargs": {"k": 4}}, "topk"),
        ({**RUN, "activation_fn": "topk", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4.0}}, "topk"),
        ({**NEW, "architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": False}, "topk"),
        (OLD, "relu"),
        (RUN, "relu"),
        (NEW, "relu"),
        ({"d_in": D_IN, "d_sae": D_SAE}, "relu"),
    ],
)
def test_the_code_rule_is_the_one_that_the_age_of_the_file_says(config, rule, tmp_path):
    weights, x = tensors(), inputs()
    sae = read_saelens(written(tmp_path, config, weights)).sae
    pre = pre_activations(weights, x)
    codes = top(pre, 4) if rule == "topk" else pre.relu()
    assert sae.variant.name == rule
    assert same(sae.encode(x), codes)
    assert same(sae(x), codes @ weights["W_dec"] + weights["b_dec"])


@pytest.mark.parametrize("architecture", ["jumprelu", "gated"])
def test_old_files_of_other_architectures_are_read_by_their_formulas(architecture, tmp_path):
    weights, x = tensors(architecture), inputs()
    sae = read_saelens(written(tmp_path / "a", {**OLD, "architecture": architecture}, weights)).sae
    if architecture == "jumprelu":
        pre = pre_activations(weights, x)
        codes = pre.relu() * (pre > weights["threshold"])
        logarithms = {name: tensor for name, tensor in weights.items() if name != "threshold"}
        logarithms["log_threshold"] = weights["threshold"].log()
        folder = written(tmp_path / "b", {**OLD, "architecture": architecture}, logarithms)
        assert same(read_saelens(folder).sae(x), codes @ weights["W_dec"] + weights["b_dec"])
    else:
        magnitudes = (x - weights["b_dec"]) @ (weights["W_enc"] * weights["r_mag"].exp()) + weights["b_mag"]
        codes = magnitudes.relu() * (pre_activations(weights, x, "b_gate") > 0)
    assert same(sae.encode(x), codes)
    assert same(sae(x), codes @ weights["W_dec"] + weights["b_dec"])


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
def test_a_scaling_factor_of_finetuning_multiplies_what_is_decoded(name, tmp_path):
    factor, x = torch.linspace(0.5, 2, D_SAE), inputs()
    weights = tensors(**{name: factor})
    codes = pre_activations(weights, x).relu()
    for number, said in enumerate(({**OLD, "finetuning_scaling_factor": True}, {**RUN, "finetuning_method": "scale"})):
        sae = read_saelens(written(tmp_path / str(number), said, weights)).sae
        assert same(sae(x), (codes * factor) @ weights["W_dec"] + weights["b_dec"])
    with pytest.raises(ModelError, match=rf"{name}: values other than 1 where cfg\.json says nothing of finetuning"):
        read_saelens(written(tmp_path / "unsaid", OLD, weights))
    with pytest.raises(ModelError, match=rf"{name}: values other than 1"):
        read_saelens(written(tmp_path / "new", {**NEW, "finetuning_scaling_factor": True}, weights))
    with pytest.raises(ModelError, match="'finetuning_scaling_factor' is missing"):
        read_saelens(written(tmp_path / "absent", {**OLD, "finetuning_scaling_factor": True}, tensors()))
    ones = read_saelens(written(tmp_path / "ones", OLD, tensors(**{name: torch.ones(D_SAE)}))).sae
    assert same(ones(x), codes @ weights["W_dec"] + weights["b_dec"])


@pytest.mark.parametrize(
    ("base", "changed", "message"),
    [
        (OLD, {"activation_fn_str": "tanh-relu"}, "activation_fn_str: 'tanh-relu'; allowed: relu, topk"),
        (RUN, {"activation_fn": "gelu"}, "activation_fn: 'gelu'; allowed: relu, topk"),
        (OLD, {**TOPK, "architecture": "jumprelu"}, "activation_fn_str: 'topk'; allowed: relu, or left out, in arch"),
        (OLD, {"architecture": "topk"}, "activation_fn_str: 'relu'; allowed: topk, or left out, in architecture topk"),
        (OLD, {**TOPK, "activation_fn": "relu"}, "activation_fn_str: 'topk' and activation_fn: 'relu', which are one"),
        (NEW, TOPK, "activation_fn_str: 'topk'; allowed: relu, or left out, in architecture standard of SAELens 6"),
        (OLD, {**TOPK, "activation_fn_kwargs": {"k": 4, "postact_fn": "identity"}}, "'identity'}; allowed: k alone"),
        (OLD, {**TOPK, "activation_fn_kwargs": {}}, "'k' is missing for architecture topk"),
        (OLD, {**TOPK, "activation_fn_kwargs": {"k": 4.5}}, "allowed: k, a whole number above 0"),
        (OLD, {**TOPK, "activation_fn_kwargs": {"k": 41}}, "k: 41 codes kept of only 40"),
        (OLD, {**TOPK, "k": 5}, "k: 5; allowed: 4, which activation_fn_kwargs says"),
        (
            {},
            {"activation_fn_kwargs": {"k": 4}},
            "allowed: left out in architecture standard without activation_fn_str",
        ),
        (NEW, {"k": 4}, "k: 4; allowed: left out in architecture standard"),
        (NEW, {"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm: True; allowed: left out"),
        (NEW, {"architecture": "transcoder"}, "apply_b_dec_to_input: True; allowed: false in architecture transcoder"),
        (NEW, {"d_out": 8}, "d_out: 8; allowed: left out in architecture standard"),
        (OLD, {"normalize_activations": "constant_norm_rescale"}, "normalize_activations: 'constant_norm_rescale'"),
        (OLD, {"normalize_activations": "layernorm"}, "allowed: none, expected_average_only_in, layer_norm"),
        (NEW, {"normalize_activations": "covariance_whitening"}, "normalize_activations: 'covariance_whitening'"),
        (OLD, {"hook_name": "blocks.3.attn.hook_z"}, "hook_name: 'blocks.3.attn.hook_z'; allowed: places"),
        (RUN, {"hook_point": "blocks.3.attn.hook_z"}, "hook_point: 'blocks.3.attn.hook_z'; allowed: places"),
        (OLD, {"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input: 'false'; allowed: true or false"),
        (OLD, {"use_error_term": True}, "use_error_term: True; allowed: false"),
        (OLD, {"dtype": "int8"}, "dtype: 'int8'; allowed: float32"),
        (OLD, {"d_in": 7}, r"W_enc has shape \[8, 40\] where \[7, 40\] belongs"),
        (OLD, {"d_sae": "40"}, "d_sae: '40'; allowed: a whole number above 0"),
        (OLD, {"encoder_temperature": 2.0, "b": 1}, "unknown keys: b, encoder_temperature: no standard SAE of SAELens"),
        (NEW, {"n_heads": 8}, "unknown keys: n_heads"),
        (NEW, {"metadata": {"normalize_activations": "layer_norm"}}, "metadata: normalize_activations: SAELens reads"),
        (NEW, {"metadata": {"sae_lens_version": "six"}}, "sae_lens_version: 'six'; allowed: a version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_kept_is_refused_with_its_key_and_value(base, changed, message, tmp_path):
    with pytest.raises(ModelError, match=message) as caught:
        read_saelens(written(tmp_path, {**base, **changed}, tensors()))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "changed", "message"),
    [
        ("standard", {"b_gate": torch.zeros(D_SAE)}, "tensors that no architecture standard has: b_gate"),
        ("standard", {"threshold": torch.ones(D_SAE)}, "tensors that no architecture standard has: threshold"),
        ("standard", {"W_dec_norm": torch.ones(D_SAE)}, "tensors that no architecture standard has: W_dec_norm"),
        ("gated", {"b_enc": torch.ones(D_SAE)}, "tensors that no architecture gated has: b_enc"),
        ("jumprelu", {"threshold": None}, "'threshold' is missing for architecture jumprelu"),
        ("jumprelu", {"log_threshold": torch.ones(D_SAE)}, "no architecture jumprelu has: log_threshold"),
        ("standard", {"W_enc": torch.ones(D_SAE, D_IN)}, r"W_enc has shape \[40, 8\] where \[8, 40\] .* transposed"),
        ("standard", {"W_dec": torch.ones(D_IN, D_SAE)}, r"W_dec has shape \[8, 40\] where \[40, 8\] .* transposed"),
        (
            "standard",
            {"b_enc": torch.ones(3)},
            r"b_enc has shape \[3\] where \[40\] belongs: these weights belong to so",
        ),
        ("standard", {"b_enc": torch.full((D_SAE,), torch.nan)}, "b_enc: 40 of 40 values are NaN or infinite"),
        ("gated", {"r_mag": torch.tensor([torch.inf] + [0.0] * 39)}, "r_mag: 1 of 40 values are NaN or infinite"),
        ("standard", {"W_dec": torch.ones(D_SAE, D_IN, dtype=torch.int8)}, "W_dec has dtype int8; allowed: float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors_that_do_not_belong_are_refused_by_name(architecture, changed, message, tmp_path):
    weights = {name: tensor for name, tensor in {**tensors(architecture), **changed}.items() if tensor is not None}
    with pytest.raises(ModelError, match=message) as caught:
        read_saelens(written(tmp_path, {**OLD, "architecture": architecture}, weights))
    assert "sae_weights.safetensors" in str(caught.value)


def test_odd_but_harmless_things_are_noted(tmp_path):
    half = {name: tensor.bfloat16() for name, tensor in tensors().items()}
    config = {**NEW, "dtype": "torch.bfloat16", "metadata": {"sae_lens_version": "7.0.0"}}
    notices = read_saelens(written(tmp_path / "half", config, half)).notices
    assert [notice.level for notice in notices] == ["warning", "note"]
    assert "written by SAELens 7" in notices[0].text
    assert "codes in bfloat16" in notices[1].text
    leftover = read_saelens(written(tmp_path / "left", {**OLD, "activation_fn_kwargs": {"k": 4}}, tensors()))
    assert leftover.sae.variant.name == "relu"
    assert "without effect, since activation_fn_str is relu" in leftover.notices[0].text


def test_an_sae_that_reconstructs_worse_than_the_mean_is_warned_of(tmp_path):
    values = torch.randn(30, 10, D_IN, generator=torch.Generator().manual_seed(2)).numpy() * 3
    manifest = write_store(tmp_path / "store", values, list(range(10)), {"train": 20, "val": 10})
    folder = written(tmp_path / "sae", NEW, tensors())
    arguments = ["import-sae", "--source", str(folder), "--output", str(tmp_path / "out")]
    cli.main([*arguments, "--manifests", str(manifest)])
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["normalized_mse"] > 1
    assert "the mean of the activations alone has 1" in summary["notices"][-1]["text"]
    assert summary["notices"] == json.loads((tmp_path / "out/config.json").read_text())["notices"]


def test_cut_and_altered_files_are_named(tmp_path):
    folder = written(tmp_path, OLD, tensors())
    weights, config = folder / "sae_weights.safetensors", folder / "cfg.json"
    whole = weights.read_bytes()
    for n_bytes in (0, 7, 100, len(whole) - 1):
        weights.write_bytes(whole[:n_bytes])
        with pytest.raises(ModelError, match=r"sae_weights\.safetensors: damaged, or no safetensors file"):
            read_saelens(folder)
    weights.write_bytes(whole)
    assert set(load_file(weights)) == {"W_enc", "W_dec", "b_enc", "b_dec"}
    for text, message in (
        ('{"d_in": 8', "not JSON"),
        ("[1]", "a list or a single value instead of keys"),
        ("", "not JSON"),
        ('{"k": 4, "k": 8}', r"not JSON \(k is"),
    ):
        config.write_text(text)
        with pytest.raises(ModelError, match=rf"cfg\.json: {message}"):
            read_saelens(folder)
