"""Every family of timm models that visae reads, small and with random weights, against timm itself.

One battery over all: hooks, forward_intermediates, resuming, the tokens' ids. A new family is one line here.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from visae.activations.extract import extract_shard, publish_store
from visae.activations.store import ActivationStore
from visae.config.settings import ModelSettings, ScenesSettings
from visae.data.images import pixels
from visae.data.index import build_index, read_index
from visae.errors import DataError, ModelError
from visae.interventions.edits import Edit, PredictedAs, Site, edited
from visae.interventions.passes import edited_passes
from visae.sae import SparseAutoencoder
from visae.sae.topk import TopK
from visae.vision.model import HookPoint, VisionModel, card_of, load_model, prepare_model
from visae.vision.torchvision_guard import allow_cpu_torch
from visae.vision.weights import created

# Both sides are the same float32 sums in another order.
SAME_SUMS = 1e-5


@dataclass(frozen=True)
class Family:
    """A member: its architecture, the size that it is tried at, and what its tokens are."""

    architecture: str
    size: int | tuple[int, int]
    n_prefix: int
    grid: tuple[int, int]
    has_class_token: bool = True
    separable: bool = True


TRANSFORMERS = {
    "AugReg": Family("vit_tiny_patch16_224.augreg_in21k", 64, 1, (4, 4)),
    "DeiT": Family("deit_tiny_patch16_224", 48, 1, (3, 3)),
    "DeiT, distilled": Family("deit_tiny_distilled_patch16_224", 48, 2, (3, 3)),
    "DeiT III": Family("deit3_small_patch16_224", 48, 1, (3, 3)),
    "MAE": Family("vit_base_patch16_224.mae", 32, 1, (2, 2)),
    "DINOv2": Family("vit_small_patch14_dinov2.lvd142m", (42, 56), 1, (3, 4)),
    "DINOv2 with registers": Family("vit_small_patch14_reg4_dinov2.lvd142m", 42, 5, (3, 3)),
    "DINOv3": Family("vit_small_patch16_dinov3.lvd1689m", (64, 48), 5, (4, 3)),
    "DINOv3 plus": Family("vit_small_plus_patch16_dinov3.lvd1689m", 48, 5, (3, 3)),
    "CLIP": Family("vit_base_patch32_clip_224.openai", (96, 64), 1, (3, 2)),
    "CLIP, quick GELU": Family("vit_base_patch32_clip_quickgelu_224.openai", 64, 1, (2, 2)),
    "SigLIP": Family("vit_base_patch16_siglip_224.webli", 32, 0, (2, 2), has_class_token=False),
    "SigLIP 2": Family("vit_base_patch32_siglip_256.v2_webli", (64, 96), 0, (2, 3), has_class_token=False),
    "Perception Encoder, core": Family("vit_pe_core_tiny_patch16_384.fb", 64, 1, (4, 4)),
    "Perception Encoder, spatial": Family("vit_pe_spatial_tiny_patch16_512.fb", (48, 64), 1, (3, 4)),
    "BEiT": Family("beit_base_patch16_224.in22k_ft_in22k", 32, 1, (2, 2)),
    "BEiT v2": Family("beitv2_base_patch16_224.in1k_ft_in22k", (32, 48), 1, (2, 3)),
    "EVA-02": Family("eva02_tiny_patch14_224.mim_in22k", (42, 28), 1, (3, 2)),
    "EVA-02, classifier": Family("eva02_tiny_patch14_336.mim_in22k_ft_in1k", 42, 1, (3, 3)),
    "no class token": Family("vit_relpos_small_patch16_224.sw_in1k", 48, 0, (3, 3), has_class_token=False),
    "register, no class token": Family("test_vit2.r160_in1k", (48, 32), 1, (3, 2), has_class_token=False),
    "rotary, one a block": Family("vit_small_patch16_rope_mixed_224.naver_in1k", (48, 32), 1, (3, 2)),
    "parallel blocks": Family("vit_small_patch16_18x2_224", 32, 1, (2, 2), separable=False),
}
CONVOLUTIONAL = {
    "ResNet": Family("test_resnet.r160_in1k", (96, 64), 0, (3, 2), has_class_token=False),
    "ConvNeXt": Family("test_convnext.r160_in1k", 96, 0, (3, 3), has_class_token=False),
    "EfficientNet": Family("test_efficientnet.r160_in1k", (64, 96), 0, (2, 3), has_class_token=False),
    "RegNet": Family("regnety_002.pycls_in1k", 64, 0, (2, 2), has_class_token=False),
    "Swin": Family("swin_tiny_patch4_window7_224.ms_in1k", 224, 0, (7, 7), has_class_token=False),
}


def randomized(family: Family, **options: int) -> VisionModel:
    """Model with weights at random, those included that training starts at zero or one."""
    size = family.size if isinstance(family.size, int) else list(family.size)
    settings = ModelSettings(architecture=family.architecture, weights="random", image_size=size)
    allow_cpu_torch()
    torch.manual_seed(1)
    module = created(family.architecture, size, **options).eval()
    model = VisionModel(module, card_of(module, settings.identity(), origin="random", weights_sha256=""))
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def pictures(model: VisionModel, n: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, *model.card.image_size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module", params=[*TRANSFORMERS], ids=str)
def transformer(request: pytest.FixtureRequest) -> tuple[VisionModel, Family]:
    family = TRANSFORMERS[request.param]
    return randomized(family, depth=4), family  # of its 12 or more blocks: all are alike


@pytest.fixture(scope="module", params=[*CONVOLUTIONAL], ids=str)
def convolutional(request: pytest.FixtureRequest) -> tuple[VisionModel, Family]:
    family = CONVOLUTIONAL[request.param]
    return randomized(family), family


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


def small_sae(d_model: int) -> SparseAutoencoder:
    """SAE with weights at random, active on most of what it reads."""
    sae = SparseAutoencoder(d_model, 3 * d_model, TopK(8))
    generator = torch.Generator().manual_seed(5)
    for name in ("encoder_weight", "decoder_weight"):
        weight = torch.randn(3 * d_model, d_model, generator=generator)
        getattr(sae, name).data.copy_(torch.nn.functional.normalize(weight))
    return sae.requires_grad_(False)


def by_hooks(model: VisionModel, images: torch.Tensor, run: list[Edit], sites: dict[int, Site], layout: str):
    """Final tokens of timm's own forward pass, with hooks that edit the outputs of layers."""
    seen = (torch.arange(len(images)) % 2 == 0)[:, None].long()

    def hook(layer: int):
        def changed(_module, _inputs, output):
            tokens = output
            if layout == "stages":
                d_model = model.card.layers[layer].d_model
                last = output.shape[-1] == d_model and output.shape[1] != d_model
                tokens = output.flatten(1, 2) if last else output.flatten(2).transpose(1, 2)
            for edit in (edit for edit in run if edit.layer == layer):
                n_patches = tokens.shape[1] - model.card.n_prefix
                tokens = edited(tokens, edit, sites[layer], model.card.n_prefix, seen.expand(-1, n_patches))
            if layout == "blocks":
                return tokens
            return (tokens if last else tokens.transpose(1, 2)).reshape(output.shape)

        return changed

    names = {layer: f"blocks.{layer}" for layer in sites}
    if layout == "stages":
        names = {layer: model.module.feature_info[layer]["module"] for layer in sites}
    handles = [model.module.get_submodule(names[layer]).register_forward_hook(hook(layer)) for layer in sites]
    with torch.inference_mode():
        final = model(images)
    for handle in handles:
        handle.remove()
    return final


def check_edits(model: VisionModel) -> None:
    """Runs of edits at one and at several layers are what hooks on the whole pass do."""
    images, depth = pictures(model), model.card.depth
    layers = [depth - 3, depth - 2, depth - 1]
    sites = {layer: Site(layer, small_sae(model.card.layers[layer].d_model)) for layer in layers}
    tokens = {point.layer: t for point, t in model.read(images, [HookPoint(layer) for layer in layers]).items()}
    first, middle, last = layers
    busy = {layer: int(sites[layer].sae.encode(tokens[layer].flatten(0, 1)).sum(0).argmax()) for layer in layers}
    # Large next to the tokens, so that an edit that is lost or done twice shows.
    size = {layer: 5 * float(tokens[layer].norm(dim=2).mean()) for layer in layers}
    early = Edit(first, (busy[first], 0), amount=(size[first], -size[first]))
    inside = Edit(middle, (busy[middle],), "add", size[middle], where="active")
    late = Edit(last, (busy[last],), "scale", 9.0, where=(0,))
    # In the one picture whose patches are all of channel 1 there is something to do, in the others nothing.
    some = Edit(middle, (0,), amount=size[middle], where=PredictedAs(1))
    runs = [[early], [inside, some], [some], [early, inside], [late, early, inside], [early, some, late], []]
    predicted = (torch.arange(len(images)) % 2 == 0).long()[:, None].expand(-1, model.card.layers[middle].n_patches)
    for batch_size in (2, 100):
        found = list(edited_passes(model, sites.values(), tokens, runs, predicted=predicted, batch_size=batch_size))
        assert len(found) == len(runs)
        for run, final in zip(runs, found, strict=True):
            wanted = by_hooks(model, images, run, sites, model.card.family)
            assert (final - wanted).abs().max() < 10 * SAME_SUMS * max(1.0, float(wanted.abs().max())), run
    plain = model(images)
    assert (found[-1] - plain).abs().max() < SAME_SUMS * max(1.0, float(plain.abs().max()))
    assert (found[0] - plain).abs().amax(dim=(1, 2)).min() > 1e-3
    assert torch.equal((found[2] - plain).abs().amax(dim=(1, 2)) > 1e-3, torch.tensor([True, False, True]))
    with pytest.raises(DataError, match="an SAE is given for layers"):
        next(edited_passes(model, sites.values(), tokens, [[Edit(depth, (0,))]]))
    with pytest.raises(DataError, match="tokens are given of"):
        next(edited_passes(model, sites.values(), {last: tokens[last]}, [[early, late]]))


def test_edits_at_several_layers_are_hooks_on_the_whole_pass(transformer: tuple[VisionModel, Family]) -> None:
    check_edits(transformer[0])


def test_edits_of_stages_are_hooks_on_the_whole_pass(convolutional: tuple[VisionModel, Family]) -> None:
    check_edits(convolutional[0])


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
        extract_shard(settings, 0, 1, layer, layers, index, card, folder / "receipt-0.json", device="cpu")
        publish_store(settings, layer, 1, index, card, folder / "manifest.json", device="cpu")
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
