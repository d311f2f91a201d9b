"""Every family of timm models that visae reads, small and with random weights, against timm itself.

One battery over all: hooks, forward_intermediates, resuming, the tokens' ids. Edits are in test_family_edits.py.
"""

from pathlib import Path

import pytest
import torch
from families_for_tests import CONVOLUTIONAL, SAME_SUMS, TRANSFORMERS, Family, pictures, small_model

from visae.activations.extract import StoreSource, extract_shard, publish_store
from visae.activations.store import ActivationStore
from visae.config.settings import ModelSettings, ScenesSettings
from visae.data.images import pixels
from visae.data.index import build_index, read_index
from visae.errors import ModelError
from visae.vision.model import HookPoint, VisionModel, load_model, prepare_model


@pytest.fixture(scope="module", params=[*TRANSFORMERS], ids=str)
def transformer(request: pytest.FixtureRequest) -> tuple[VisionModel, Family]:
    return small_model(request.param), TRANSFORMERS[request.param]


@pytest.fixture(scope="module", params=[*CONVOLUTIONAL], ids=str)
def convolutional(request: pytest.FixtureRequest) -> tuple[VisionModel, Family]:
    return small_model(request.param), CONVOLUTIONAL[request.param]


def test_the_card_says_what_the_tokens_are(transformer: tuple[VisionModel, Family]) -> None:
    model, family = transformer
    card = model.card
    assert (card.family, card.n_prefix, card.grid) == ("blocks", family.n_prefix, family.grid)
    assert card.has_class_token is family.has_class_token
    prefix = list(range(-1 if family.has_class_token else -2, -1000, -1))[: family.n_prefix]
    assert card.tokens(0) == [*prefix, *range(family.grid[0] * family.grid[1])]


def test_layers_are_what_hooks_and_timm_see(transformer: tuple[VisionModel, Family]) -> None:
    model, family = transformer
    images, layers = pictures(model), list(range(model.card.depth))
    seen: dict[int, torch.Tensor] = {}
    handles = [
        model.module.blocks[layer].register_forward_hook(lambda _m, _i, out, layer=layer: seen.update({layer: out}))
        for layer in layers
    ]
    read = model.read(images, [HookPoint(layer) for layer in layers])
    seen.clear()
    with torch.inference_mode():
        model.module(model.normalized(images))
    for handle in handles:
        handle.remove()
    with torch.inference_mode():
        theirs = model.module.forward_intermediates(
            model.normalized(images), indices=layers, intermediates_only=True, return_prefix_tokens=family.n_prefix > 0
        )
    for layer, intermediate in zip(layers, theirs, strict=True):
        ours = read[HookPoint(layer)]
        assert torch.equal(ours, seen[layer])
        # timm returns (grid, prefix) where there are prefix tokens; the grid is (b, d_model, rows, columns).
        grid, prefix = intermediate if isinstance(intermediate, tuple | list) else (intermediate, ours[:, :0])
        assert torch.equal(ours[:, : family.n_prefix], prefix)
        patches = ours[:, family.n_prefix :].unflatten(1, family.grid).permute(0, 3, 1, 2)
        assert torch.equal(patches, grid)


def test_resuming_gives_the_logits_of_the_whole_pass(transformer: tuple[VisionModel, Family]) -> None:
    model, _ = transformer
    images, depth = pictures(model), model.card.depth
    with torch.inference_mode():
        whole = model.module(model.normalized(images))
    layers = [0, depth - 2, depth - 1]
    for point, tokens in model.read(images, [HookPoint(layer) for layer in layers]).items():
        final = model.resume(tokens.clone(), point.layer)
        logits = model.logits(final)
        assert logits.shape == whole.shape
        assert (logits - whole).abs().max() < SAME_SUMS * max(1.0, float(whole.abs().max()))


def test_resuming_depends_on_the_tokens_that_it_is_given(transformer: tuple[VisionModel, Family]) -> None:
    model, _ = transformer
    point = HookPoint(model.card.depth - 2)
    tokens = model.read(pictures(model), [point])[point].clone().requires_grad_()
    model.resume(tokens, point.layer)[1].square().sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[1].abs().sum(dim=1).min() > 0
    assert tokens.grad[[0, 2]].abs().max() == 0


def test_what_a_block_adds_is_what_its_parts_add(transformer: tuple[VisionModel, Family]) -> None:
    model, family = transformer
    points = [HookPoint(1), HookPoint(2), HookPoint(2, "attention"), HookPoint(2, "mlp")]
    if not family.separable:
        with pytest.raises(ModelError, match="add attention and MLP to the residual stream together"):
            model.read(pictures(model), points)
        return
    read = model.read(pictures(model), points)
    before, after, attention, mlp = (read[point] for point in points)
    assert min(attention.abs().max(), mlp.abs().max()) > 1e-3
    assert (before + attention + mlp - after).abs().max() < SAME_SUMS * max(1.0, float(after.abs().max()))


def test_the_final_norm_is_timms(transformer: tuple[VisionModel, Family]) -> None:
    model, _ = transformer
    images, last = pictures(model), model.card.depth - 1
    read = model.read(images, [HookPoint(last), HookPoint(last, "norm")])
    final = model(images)
    assert (read[HookPoint(last, "norm")] - final).abs().max() < SAME_SUMS * max(1.0, float(final.abs().max()))
    normed = model.final_norm(read[HookPoint(last)].clone())
    assert (normed - final).abs().max() < SAME_SUMS * max(1.0, float(final.abs().max()))


def test_the_class_token_is_the_row_that_it_should_be(transformer: tuple[VisionModel, Family]) -> None:
    model, family = transformer
    if not family.has_class_token:
        assert -1 not in model.card.tokens(0)
        return
    before = model.read(pictures(model), [HookPoint(0)])[HookPoint(0)]
    kept = model.module.cls_token.data.clone()
    model.module.cls_token.data.add_(5 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(3)))
    after = model.read(pictures(model), [HookPoint(0)])[HookPoint(0)]
    model.module.cls_token.data.copy_(kept)
    moved = (after - before).norm(dim=2)
    assert (moved.argmax(dim=1) == model.card.tokens(0).index(-1)).all()


def test_a_convolutional_networks_cells_are_its_tokens(convolutional: tuple[VisionModel, Family]) -> None:
    model, family = convolutional
    images, card = pictures(model), model.card
    assert (card.family, card.n_prefix, card.grid) == ("stages", 0, family.grid)
    points = [HookPoint(layer) for layer in range(card.depth)]
    read = model.read(images, points)
    with torch.inference_mode():
        theirs = model.module.forward_intermediates(
            model.normalized(images), indices=list(range(card.depth)), intermediates_only=True, output_fmt="NCHW"
        )
        whole = model.module(model.normalized(images))
    for point, grid in zip(points, theirs, strict=True):
        shape = card.layers[point.layer]
        assert (shape.d_model, shape.grid) == (grid.shape[1], tuple(grid.shape[2:]))
        assert torch.equal(read[point].unflatten(1, shape.grid).permute(0, 3, 1, 2), grid)
        logits = model.logits(model.resume(read[point].clone(), point.layer))
        assert (logits - whole).abs().max() < SAME_SUMS * max(1.0, float(whole.abs().max()))


def test_a_convolutional_network_has_no_attention(convolutional: tuple[VisionModel, Family]) -> None:
    model, _ = convolutional
    with pytest.raises(ModelError, match=r"hook: attention: .* has stages of feature grids"):
        model.card.check(HookPoint(0, "attention"), "studies: layer")


@pytest.mark.parametrize("architecture", ["cait_xxs24_224", "hiera_tiny_224"])
def test_other_networks_are_refused_by_name(tmp_path: Path, architecture: str) -> None:
    settings = ModelSettings(architecture=architecture, weights="random")
    with pytest.raises(ModelError, match=r"no feature grids|neither blocks"):
        prepare_model(settings.identity(), tmp_path / "weights.safetensors", tmp_path / "model.json")


STORED = {
    "registers": Family("vit_small_patch14_reg4_dinov2.lvd142m", 42, 5, (3, 3)),
    "rotary, not square": Family("vit_small_patch16_dinov3.lvd1689m", (64, 48), 5, (4, 3)),
    "no prefix": Family("vit_relpos_small_patch16_224.sw_in1k", 48, 0, (3, 3), has_class_token=False),
    "stages": Family("test_resnet.r160_in1k", (96, 64), 0, (3, 2), has_class_token=False),
}


@pytest.mark.parametrize("name", STORED)
def test_stored_rows_are_the_tokens_that_they_say(tmp_path: Path, name: str) -> None:
    """From picture files to Parquet rows and on to logits: two hook points, written in one pass."""
    family = STORED[name]
    size = family.size if isinstance(family.size, int) else list(family.size)
    settings = ModelSettings(
        architecture=family.architecture, weights="random", image_size=size, batch_size=4, dtype="float32"
    )
    index, card = tmp_path / "datasets" / "index.parquet", tmp_path / "model" / "model.json"
    build_index(ScenesSettings(kind="scenes", train=5, val=3, test=2, image_size=64), index)
    prepare_model(settings.identity(), card.with_name("weights.safetensors"), card, seed=1)
    model = load_model(card)
    layers = [str(model.card.depth - 2), str(model.card.depth - 1)]
    layers += [f"{model.card.depth - 2}-mlp"] if model.card.family == "blocks" else []
    for layer in layers:
        folder = tmp_path / f"layer{layer}"
        source = StoreSource(index, card, 1)
        extract_shard(settings, source, 0, layer, layers, folder / "receipt-0.json", device="cpu")
        publish_store(settings, source, layer, folder / "manifest.json", device="cpu")
    images = torch.stack([pixels(path, model.card) for path in read_index(index)["path"]])
    expected = model.read(images, [HookPoint.parse(layer) for layer in layers])
    whole = model.logits(model(images))
    for layer in layers:
        store, point = ActivationStore.open(tmp_path / f"layer{layer}" / "manifest.json"), HookPoint.parse(layer)
        assert list(store.choice.tokens) == model.card.tokens(point.layer)
        assert store.grid == model.card.layers[point.layer].grid
        # Batches of another size sum in another order.
        rows = store.read(range(10), "all")
        assert (rows - expected[point]).abs().max() < SAME_SUMS * max(1.0, float(rows.abs().max()))
        if point.hook == "residual":
            logits = model.logits(model.resume(rows, point.layer))
            assert (logits - whole).abs().max() < SAME_SUMS * max(1.0, float(whole.abs().max()))
