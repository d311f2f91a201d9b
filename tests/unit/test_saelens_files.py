"""Files of SAELens of all its ages: each key and tensor is honoured, known to change nothing, or refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from visae import cli
from visae.activations.given import write_store
from visae.errors import ModelError
from visae.sae import load_sae
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.unsaid import Unsaid

D_IN, D_SAE = 8, 40
# What sae-lens 5.11.0 writes of an SAE, whatever its code rule.
OLD = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "device": "cuda",
    "model_name": "a-vit",
    "hook_name": "blocks.3.hook_resid_post",
    "hook_layer": 3,
    "hook_head_index": None,
    "activation_fn_str": "relu",
    "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "sae_lens_training_version": "5.11.0",
    "prepend_bos": True,
    "dataset_path": "pictures",
    "dataset_trust_remote_code": True,
    "context_size": 128,
    "normalize_activations": "none",
    "neuronpedia_id": None,
    "model_from_pretrained_kwargs": {},
    "seqpos_slice": [None],
}
TOPK = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
# Settings of a whole run, which stood in cfg.json instead: with other names in sae-lens 2, of which these are some.
RUN = {
    **{key: OLD[key] for key in ("d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "model_name")},
    **{"hook_point": "blocks.3.hook_resid_post", "hook_point_layer": 3, "hook_point_head_index": None},
    **{"activation_fn": "relu", "normalize_activations": False, "normalize_sae_decoder": True, "noise_scale": 0.0},
    **{"from_pretrained_path": None, "use_cached_activations": False, "lr": 3e-4, "l1_coefficient": 1e-3},
    **{"sae_lens_version": "2.1.3", "finetuning_method": None, "tokens_per_buffer": 4096, "wandb_project": "none"},
}
NEW = {
    **{"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"},
    **{"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"},
    "metadata": {"sae_lens_version": "6.54.12", "model_name": "a-vit", "own_note": "anything"},
}


def read_saelens(folder):
    return read_foreign(folder, Unsaid(as_="saelens")).given


def tensors(architecture="standard", **more):
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator)

    made = {"W_enc": drawn(D_IN, D_SAE), "W_dec": 2 * normalize(drawn(D_SAE, D_IN)), "b_dec": drawn(D_IN)}
    own = {
        "jumprelu": {"b_enc": drawn(D_SAE), "threshold": drawn(D_SAE).abs()},
        "gated": {"b_gate": drawn(D_SAE), "r_mag": drawn(D_SAE) / 4, "b_mag": drawn(D_SAE)},
        "batchtopk": {"b_enc": drawn(D_SAE), "topk_threshold": torch.tensor(1.5)},
    }
    return made | own.get(architecture, {"b_enc": drawn(D_SAE)}) | more


def written(folder, config, weights):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "sae_weights.safetensors")
    return folder


def inputs():
    return torch.randn(200, D_IN, generator=torch.Generator().manual_seed(5)) * 3 + 1


def pre_activations(weights, x, bias="b_enc"):
    return (x - weights["b_dec"]) @ weights["W_enc"] + weights[bias]


def top(pre, k):
    kept = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())


def same(found, expected):
    return float((found - expected).norm() / expected.norm()) < 1e-5


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
