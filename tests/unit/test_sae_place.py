import json
from dataclasses import replace

import pytest
import torch

from visae.errors import ModelError
from visae.sae import Place, SparseAutoencoder, load_sae, save_sae
from visae.sae.variants.members import VARIANTS
from visae.sae.variants.relu import Relu
from visae.sae.variants.sparse import SparseCodes
from visae.sae.variants.topk import TopK

KINDS = ("none", "scale", "per_dimension", "per_token")
D, WIDTH = 12, 40
# Of variants that need more than k.
OPTIONS = {
    "quantized": {"levels": [0.0, 0.5, 2.0]},
    "relu": {},
    "gated": {"width": WIDTH},
    "jumprelu": {"width": WIDTH},
    "matryoshka": {"over": "topk", "k": 4},
    "archetypal": {"k": 4, "width": WIDTH, "d_target": D, "points": 5},
}


def random_sae(normalization, variant=None, d_target=None, clamp=None):
    generator = torch.Generator().manual_seed(7)
    sae = SparseAutoencoder(D, WIDTH, variant or TopK(4), d_target, clamp, normalization)
    for name, tensor in sae.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(tensor if name == "eps" else drawn.abs() + 0.5 if "scale" in name or name == "limit" else drawn)
    return sae.requires_grad_(False)


def some_activations(*leading, seed=1):
    # Tokens far apart in mean and deviation, so that a formula with another token's would show.
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(*leading, 1, generator=generator) * 9 + 0.5
    return torch.randn(*leading, D, generator=generator) * sizes + torch.randn(*leading, 1, generator=generator) * 5


def closed_form(sae, x):
    """Mean and deviation that an activation is normalized with, in double precision."""
    x = x.double()
    if sae.normalization == "none":
        return torch.zeros(D).double(), torch.ones(()).double()
    if sae.normalization == "per_token":
        mean = x.sum(-1, keepdim=True) / D
        return mean, ((x - mean).square().sum(-1, keepdim=True) / (D - 1)).sqrt() + 1e-5
    return sae.mean.double(), sae.scale.double()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_what_they_decode_to_are_those_of_the_formula(kind):
    sae, x = random_sae(kind, Relu()), some_activations(50)
    mean, deviation = closed_form(sae, x)
    inputs = (x.double() - mean) / deviation
    codes = (inputs @ sae.encoder_weight.double().T + sae.encoder_bias.double()).clamp(min=0)
    assert torch.allclose(sae.encode(x).double(), codes, atol=1e-4)
    decoded = (codes @ sae.decoder_weight.double() + sae.decoder_bias.double()) * deviation + mean
    assert torch.allclose(sae.decode(codes.float(), like=x).double(), decoded, rtol=1e-4, atol=1e-3)
    assert torch.allclose(sae(x).double(), decoded, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_codes_moves_raw_activations_by_finite_differences_of_the_decoder(kind):
    sae, x, latents = random_sae(kind), some_activations(3, 5), [7, 0, 39]
    codes = sae.encode(x)
    step = torch.randn(3, 5, len(latents), generator=torch.Generator().manual_seed(3))
    more = codes.clone()
    more[..., latents] += step
    found = sae.change(step, latents, like=x)
    assert torch.allclose(found, sae.decode(more, like=x) - sae.decode(codes, like=x), rtol=1e-3, atol=1e-3)
    _, deviation = closed_form(sae, x)
    by_hand = (step.double() @ sae.decoder_weight.double()[latents]) * deviation
    assert torch.allclose(found.double(), by_hand, rtol=1e-4, atol=1e-4)


def test_under_per_token_an_activation_may_grow_and_shift_without_a_change_of_its_codes():
    sae, x = random_sae("per_token"), some_activations(200)
    grown = x * 3 + 11
    assert torch.allclose(sae.encode(grown), sae.encode(x), atol=1e-3)
    assert torch.allclose(sae(grown), sae(x) * 3 + 11, rtol=1e-3, atol=2e-3)


def test_what_needs_a_tokens_own_units_is_not_given_without_the_token():
    sae, x = random_sae("per_token"), some_activations(6)
    for codes in (sae.encode(x), sae.sparse_codes(x)):
        with pytest.raises(ModelError, match=r"per_token: .* give the raw activations .* decode\(codes, like="):
            sae.decode(codes)
        with pytest.raises(ModelError, match=r"like: activations \[5, 12\] for codes that decode to \[6, 12\]"):
            sae.decode(codes, like=x[:5])
    with pytest.raises(ModelError, match="each token by its own deviation"):
        sae.directions()


def test_a_token_without_a_deviation_has_finite_codes():
    sae = random_sae("per_token")
    flat = torch.full((2, D), 3.0)
    assert torch.isfinite(sae(flat)).all()
    assert torch.allclose(sae.encode(flat), sae.variant.dense(torch.zeros(2, D), sae.encoder_weight, sae.encoder_bias))


@pytest.mark.parametrize("kind", KINDS)
def test_a_transcoder_gives_its_target_in_the_targets_own_units(kind):
    sae, x = random_sae(kind, d_target=9), some_activations(4)
    codes = sae.encode(x)
    decoded = (codes @ sae.decoder_weight + sae.decoder_bias) * sae.target_scale + sae.target_mean
    assert torch.allclose(sae.decode(codes), decoded, atol=1e-5)
    assert torch.allclose(sae.decode(codes, like=x), decoded, atol=1e-5)
    assert sae.target_scale.shape == ((9,) if kind == "per_dimension" else ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_clamp_is_about_the_middle_of_each_dimension(kind):
    sae, x = random_sae(kind, clamp=1.0), some_activations(60)
    mean, deviation = closed_form(sae, x)
    middle = 0 if sae.centres else sae.middle.double()
    inputs = (x.double() - mean) / deviation
    wanted = torch.minimum(torch.maximum(inputs, middle - sae.limit), middle + sae.limit)
    assert torch.allclose(sae.normalized(x).double(), wanted, atol=1e-4)
    assert not torch.allclose(inputs, wanted, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VARIANTS)
def test_any_leading_dimensions_give_what_rows_give(kind, name):
    options = OPTIONS.get(name, {"k": 4})
    sae = random_sae(kind, VARIANTS[name].from_options(**options))
    for leading in ((), (3,), (2, 5), (2, 1, 3, 2), (2, 0, 3)):
        x = some_activations(*leading)
        rows = x.reshape(-1, D)
        codes, sparse = sae.encode(x), sae.sparse_codes(x)
        assert codes.shape == (*leading, WIDTH)
        assert torch.equal(codes.reshape(-1, WIDTH), sae.encode(rows))
        assert torch.equal(sparse.dense().reshape(-1, WIDTH), sae.sparse_codes(rows).dense())
        assert sparse.dense().shape == codes.shape
        assert sparse.without_zeros().with_values(sparse.values).dense().shape == codes.shape
        for found in (codes, sparse):
            assert sae.decode(found, like=x).shape == x.shape
            as_rows = sae.decode(codes.reshape(-1, WIDTH), like=rows)
            assert torch.allclose(sae.decode(found, like=x).reshape(-1, D), as_rows, rtol=1e-4, atol=1e-2)
        assert sae.latent_values(x, [3, 1]).shape == (*leading, 2)
        assert torch.equal(sae.latent_values(x, [3, 1]).reshape(-1, 2), sae.latent_values(rows, [3, 1]))
        assert sae(x).shape == x.shape


def test_activations_of_another_width_are_refused_by_name():
    sae = random_sae("none")
    for x in (torch.zeros(5, D + 1), torch.zeros(5, 1), torch.zeros(2, 3, D - 1), torch.tensor(1.0)):
        with pytest.raises(ModelError, match=r"this SAE takes \(…, 12\)"):
            sae.encode(x)
        with pytest.raises(ModelError, match=r"this SAE takes \(…, 12\)"):
            sae.sparse_codes(x)


@pytest.mark.parametrize("d_target", [None, 9])
def test_codes_of_another_width_are_refused_by_name(d_target):
    sae = random_sae("none", d_target=d_target)
    for codes in (torch.zeros(5, WIDTH + 1), torch.zeros(2, 3, WIDTH - 1), torch.zeros(WIDTH, 1), torch.tensor(1.0)):
        with pytest.raises(ModelError, match=rf"codes \[.*\]: this SAE decodes \(…, {WIDTH}\); give codes of its own"):
            sae.decode(codes)
    for width in (WIDTH + 1, WIDTH - 1):  # their latents may all be ones that this SAE has
        none = torch.zeros(0, dtype=torch.int64)
        codes = SparseCodes(none, torch.zeros(0), torch.zeros(6, dtype=torch.int64), width)
        with pytest.raises(ModelError, match=rf"codes \[5, {width}\]: this SAE decodes \(…, {WIDTH}\)"):
            sae.decode(codes)
    assert sae.decode(torch.zeros(WIDTH)).shape == (d_target or D,)


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_another_number_of_latents_are_refused_by_name(kind):
    sae, x = random_sae(kind), some_activations(5)
    for step in (torch.zeros(5, 2), torch.zeros(5, 4), torch.zeros(3, 5), torch.tensor(1.0)):
        with pytest.raises(ModelError, match=r"codes \[.*\]: 3 latents change by \(…, 3\); give each one's change"):
            sae.change(step, [7, 0, 39], like=x)


def test_what_a_skip_is_to_be_added_for_is_refused_by_name_where_it_is_of_other_tokens():
    sae = SparseAutoencoder(D, WIDTH, TopK(4), 9, has_skip=True)
    for like in (torch.zeros(4, D), torch.zeros(5, D + 1), torch.zeros(5, 9)):
        with pytest.raises(ModelError, match=r"like: activations \[.*\] for codes that decode to \[5, 9\]"):
            sae.decode(torch.zeros(5, WIDTH), like=like)
    assert sae.decode(torch.zeros(5, WIDTH), like=torch.zeros(5, D)).shape == (5, 9)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tokens": "cls"}, "place: tokens: 'cls'; allowed: patches, class, all"),
        ({"tokens": None}, "place: tokens: None; allowed: patches, class, all"),
        ({"layer": "3"}, "place: layer: '3'; allowed: a whole number from 0, or null"),
        ({"layer": -1}, "place: layer: -1; allowed: a whole number"),
        ({"layer": True}, "place: layer: True; allowed: a whole number"),
        ({"layer": 3.0}, "place: layer: 3.0; allowed: a whole number"),
        ({"hook": None}, "place: hook: None; allowed: text"),
        ({"model": 3}, "place: model: 3; allowed: text, or null"),
        ({"weights_sha256": b"ab"}, "place: weights_sha256: b'ab'; allowed: text, or null"),
    ],
    ids=str,
)
def test_a_place_that_is_none_is_refused_where_it_is_made(said, message):
    with pytest.raises(ModelError, match=message):
        Place(**said)
    with pytest.raises(ModelError, match=message):
        replace(Place("vit_small_patch16", "ab12", 11, "norm", "class"), **said)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d_target", "clamp"), [(None, None), (9, None), (None, 2.0)])
def test_normalization_and_place_are_in_the_file(kind, d_target, clamp, tmp_path):
    sae, x = random_sae(kind, d_target=d_target, clamp=clamp), some_activations(9)
    sae.place = Place("vit_small_patch16", "ab12", 11, "norm", "class")
    config = save_sae(sae, tmp_path)
    loaded = load_sae(config)
    assert (loaded.normalization, loaded.place) == (kind, sae.place)
    assert torch.equal(loaded(x), sae(x))
    assert json.loads(config.read_text())["place"]["tokens"] == "class"


def rewritten(config, **entries):
    said = {**json.loads(config.read_text()), **entries}
    config.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def test_a_file_of_before_is_of_patches_and_of_one_scale(tmp_path):
    sae, x = random_sae("scale"), some_activations(9)
    config = save_sae(sae, tmp_path, layer=3, hook="mlp")
    rewritten(config, normalization=None, place=None)
    loaded = load_sae(config)
    assert loaded.normalization == "scale"
    assert loaded.place == Place(layer=3, hook="mlp", tokens="patches")
    assert torch.equal(loaded(x), sae(x))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"normalization": "batch"}, r"config\.json: normalization: 'batch'; allowed: none, scale, per_dimension"),
        ({"normalization": "per_dimension"}, r"sae\.safetensors: .*scale has shape \[\] where \[12\] belongs"),
        ({"normalization": "none"}, r"sae\.safetensors: tensors that no topk SAE .*: mean, scale"),
        ({"normalization": "per_token"}, r"sae\.safetensors: .*eps"),
        ({"place": {"tokens": "registers"}}, r"config\.json: place: tokens: 'registers'; allowed: patches, class, all"),
        ({"place": {"layer": -2}}, r"config\.json: place: layer: -2; allowed: a whole number"),
        ({"place": {"layer": "11"}}, r"config\.json: place: layer: '11'"),
        ({"place": {"hook": 3}}, r"config\.json: place: hook: 3"),
        ({"place": {"model": ["a"]}}, r"config\.json: place: model: \['a'\]"),
        ({"place": {"head": 3}}, r"config\.json: place: unknown keys: head"),
        ({"place": "everywhere"}, r"config\.json: place: 'everywhere'; allowed: keys and values"),
        ({"place": {"tokens": ["class"]}}, r"config\.json: place: tokens: \['class'\]"),
    ],
    ids=str,
)
def test_a_place_or_normalization_that_is_none_is_refused_by_name(entries, message, tmp_path):
    config = save_sae(random_sae("scale"), tmp_path)
    rewritten(config, **entries)
    with pytest.raises(ModelError, match=message):
        load_sae(config)
