import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from visae.config.settings import TopKSettings
from visae.errors import ConfigError, ModelError
from visae.files import file_sha256
from visae.sae import SparseAutoencoder, load_sae, save_sae
from visae.sae.initial import initial_sae
from visae.sae.metrics import quality
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

VARIANTS = [TopK(4), Relu()]


def random_sae(variant, d_model=12, width=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sae = SparseAutoencoder(d_model, width, variant)
    for tensor in sae.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    sae.scale.fill_(2.5)
    return sae


def identity_sae(variant, d_model=6):
    sae = SparseAutoencoder(d_model, d_model, variant)
    with torch.no_grad():
        sae.encoder_weight.copy_(torch.eye(d_model))
        sae.decoder_weight.copy_(torch.eye(d_model))
    return sae


def test_topk_on_the_identity_dictionary_keeps_the_largest_entries():
    activations = torch.tensor([[3.0, -5.0, 1.0, 2.0, 0.5, -1.0], [-1.0, -2.0, -3.0, -4.0, 7.0, -6.0]])
    sae = identity_sae(TopK(2))
    kept = torch.tensor([[3.0, 0, 0, 2.0, 0, 0], [0, 0, 0, 0, 7.0, 0]])
    assert torch.equal(sae.encode(activations), kept)
    assert torch.equal(sae(activations), kept)
    codes = sae.sparse_codes(activations)
    assert codes.latents.tolist() == [0, 3, 4]
    assert codes.tokens.tolist() == [0, 0, 1]


def test_relu_on_the_identity_dictionary_keeps_the_positive_part():
    activations = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(identity_sae(Relu())(activations), activations.clamp(min=0))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
@pytest.mark.parametrize("n_tokens", [0, 1, 513, 1300])
def test_sparse_codes_equal_dense_ones(variant, n_tokens):
    sae = random_sae(variant)
    activations = torch.randn(n_tokens, 12, generator=torch.Generator().manual_seed(2)) * 3
    codes, dense = sae.sparse_codes(activations), sae.encode(activations)
    assert torch.allclose(codes.dense(), dense, atol=1e-6)
    assert bool((codes.values > 0).all())
    position = codes.tokens * sae.width + codes.latents
    assert bool((position.diff() > 0).all())
    assert torch.allclose(sae.decode(codes), sae.decode(dense), atol=1e-5)
    chosen = [7, 0, 39, 7]
    assert torch.allclose(sae.latent_values(activations, chosen), dense[:, chosen], atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_directions_are_the_change_of_the_raw_output_per_unit_of_code(variant):
    sae = random_sae(variant)
    codes = torch.rand(3, sae.width)
    more = codes.clone()
    more[:, 11] += 2.0
    change = (sae.decode(more) - sae.decode(codes)).detach()
    assert torch.allclose(change, 2.0 * sae.directions()[11].expand(3, -1), atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_a_saved_sae_loads_as_the_same_function_in_raw_units(variant, tmp_path):
    sae = random_sae(variant)
    loaded = load_sae(save_sae(sae, tmp_path, settings={"a": 1}))
    activations = torch.randn(50, 12, generator=torch.Generator().manual_seed(3)) * 4 + 1
    assert torch.equal(loaded(activations), sae(activations))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert json.loads((tmp_path / "config.json").read_text())["settings"] == {"a": 1}


def test_foreign_or_damaged_files_are_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: no such file"):
        load_sae(tmp_path / "config.json")
    config = save_sae(random_sae(TopK(4)), tmp_path)
    weights = tmp_path / "sae.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"sae\.safetensors: not the weights"):
        load_sae(config)
    config.write_text('{"format": "something else"}')
    with pytest.raises(ModelError, match="not the config of a sparse autoencoder"):
        load_sae(config)


def rewritten(config, **changed):
    """Change tensors (None takes one out) and give config.json their hash, as another version would."""
    weights = config.with_name("sae.safetensors")
    tensors = {name: tensor for name, tensor in {**load_file(weights), **changed}.items() if tensor is not None}
    save_file(tensors, weights)
    altered(config, weights_sha256=file_sha256(weights))


def altered(config, **entries):
    config.write_text(json.dumps({**json.loads(config.read_text()), **entries}))


@pytest.mark.parametrize(
    ("entries", "tensors", "message"),
    [
        ({"temperature": 2.0, "norm": 1}, {}, r"config\.json: unknown keys: norm, temperature; a newer visae wrote it"),
        ({"options": {"k": 4, "soft": True}}, {}, r"config\.json: options or sizes that no topk SAE has: .*soft"),
        ({"options": []}, {}, r"config\.json: options or sizes that no topk SAE has"),
        ({"variant": "softmax"}, {}, "not the config of a sparse autoencoder that this version reads"),
        ({"variant": "relu"}, {}, r"config\.json: options or sizes that no relu SAE has"),
        (
            {"variant": "gated", "options": {"width": 40}},
            {},
            "'variant.log_scale', 'variant.magnitude_bias' are missing",
        ),
        ({"d_model": 13}, {}, r"encoder_weight has shape \[40, 12\] where \[40, 13\] belongs"),
        ({"d_target": 12}, {}, "'target_mean', 'target_scale' are missing for topk SAE"),
        ({}, {"b_gate": torch.zeros(40)}, r"sae\.safetensors: tensors that no topk SAE of this version .* has: b_gate"),
        ({}, {"decoder_bias": None}, r"sae\.safetensors: 'decoder_bias' is missing"),
        ({}, {"decoder_weight": torch.zeros(12, 40)}, "decoder_weight .* transposed"),
    ],
    ids=str,
)
def test_what_another_version_wrote_is_refused_by_name(entries, tensors, message, tmp_path):
    config = save_sae(random_sae(TopK(4)), tmp_path)
    rewritten(config, **tensors)
    altered(config, **entries)
    with pytest.raises(ModelError, match=message):
        load_sae(config)


def test_cut_files_are_refused_with_what_to_do(tmp_path):
    config = save_sae(random_sae(TopK(4)), tmp_path)
    weights = tmp_path / "sae.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"sae\.safetensors: not the weights that config\.json was written with"):
        load_sae(config)
    altered(config, weights_sha256=file_sha256(weights))
    with pytest.raises(ModelError, match=r"sae\.safetensors: damaged, or no safetensors file"):
        load_sae(config)
    text = config.read_text()
    for cut in (text[: len(text) // 2], "", "[]"):
        config.write_text(cut)
        with pytest.raises(ModelError, match=r"config\.json: (damaged|not the config)"):
            load_sae(config)
    config.write_text(json.dumps({"format": json.loads(text)["format"], "variant": "topk"}))
    with pytest.raises(ModelError, match=r"config\.json: d_model, options, weights_sha256, width: missing"):
        load_sae(config)


def test_k_above_the_width_is_a_config_error():
    settings = TopKSettings(variant="topk", expansion=1, k=9)
    with pytest.raises(ConfigError, match="9 latents kept of only 8"):
        initial_sae(settings, torch.randn(20, 8), seed=0)


def test_initial_weights_depend_on_the_seed_and_decoder_rows_have_unit_norm():
    settings = TopKSettings(variant="topk", expansion=4, k=2)
    sample = torch.randn(100, 8, generator=torch.Generator().manual_seed(9))
    first, same, other = (initial_sae(settings, sample, seed) for seed in (1, 1, 2))
    assert torch.equal(first.decoder_weight, same.decoder_weight)
    assert not torch.equal(first.decoder_weight, other.decoder_weight)
    assert torch.allclose(normalize(first.decoder_weight), first.decoder_weight)


def test_the_mean_predictor_has_a_normalized_mse_of_one():
    activations = torch.randn(3000, 12, generator=torch.Generator().manual_seed(4)) * 5 + 30
    sae = SparseAutoencoder(12, 24, TopK(4))
    with torch.no_grad():
        sae.mean.copy_(activations.mean(0))
    found = quality(sae, activations)
    assert found.normalized_mse == pytest.approx(1, abs=1e-5)
    assert found.explained_variance == pytest.approx(0, abs=1e-5)
    assert (found.l0, found.l1, found.silent_share) == (0, 0, 1)


def test_quality_equals_its_definition():
    sae = random_sae(Relu())
    activations = torch.randn(5000, 12, generator=torch.Generator().manual_seed(5))
    error = (sae(activations) - activations).detach()
    deviation = activations - activations.mean(0)
    codes = sae.encode(activations).detach()
    found = quality(sae, activations)
    assert found.normalized_mse == pytest.approx(float(error.square().sum() / deviation.square().sum()), rel=1e-4)
    about_mean = (error - error.mean(0)).square().sum() / deviation.square().sum()
    assert found.explained_variance == pytest.approx(1 - float(about_mean), rel=1e-4)
    assert found.l0 == pytest.approx(float((codes > 0).sum(1).float().mean()), rel=1e-5)
    assert found.l1 == pytest.approx(float(codes.sum(1).mean()), rel=1e-4)
    assert found.silent_share == pytest.approx(float((codes.max(0).values == 0).float().mean()))
    assert found.dense_share == pytest.approx(float(((codes > 0).float().mean(0) > 0.1).float().mean()))
