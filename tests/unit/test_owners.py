"""The same weights give what their owners' code gives, from a picture's file to the outputs of blocks."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from owners_for_tests import (
    clip,
    dinov2,
    metas_names,
    open_clip_blocks,
    open_clip_model,
    photographs,
    pooled,
    prepared,
    save_transformers,
    siglip,
    transformers_blocks,
)
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from visae.data.images import pixels
from visae.vision.hook_points import HookPoint
from visae.vision.model import VisionModel

# Activations of these models are up to 20; the owners' sums are the same, some of them in another order.
SAME_ACTIVATIONS = 1e-4
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


# Of a picture: uint8 (height, width, 3), and the normalized (3, height, width) that goes into the network.
Seen = tuple[np.ndarray, Tensor]


@dataclass(frozen=True)
class Owner:
    """A family as its owners publish it.

    Attributes
    ----------
    architecture
        timm's name of it.
    model
        Builds the owner's model.
    save
        Writes it as its owner does, with the configurations beside it.
    sees
        What the owner's code makes of an RGB picture.
    blocks
        The owner's outputs of blocks.
    """

    architecture: str
    model: Callable[[], nn.Module]
    save: Callable[[nn.Module, Path], Path]
    sees: Callable[[Image.Image], Seen]
    blocks: Callable[[nn.Module, Tensor, list[int]], list[Tensor]]
    settings: tuple[tuple[str, object], ...] = ()


def by_transformers(processor: str, module: str, **options: object) -> Callable[[Image.Image], Seen]:
    """What one of transformers' processors that use Pillow makes of a picture."""

    def sees(image: Image.Image) -> Seen:
        made = getattr(importlib.import_module(f"transformers.models.{module}"), processor)
        raw = made(do_normalize=False, do_rescale=False, **options)(image, return_tensors="np")["pixel_values"][0]
        return raw.transpose(1, 2, 0), made(**options)(image, return_tensors="pt")["pixel_values"][0]

    return sees


CLIP_SEES = by_transformers("CLIPImageProcessorPil", "clip.image_processing_pil_clip")
SIGLIP_SIZE = {"height": 256, "width": 256}
SIGLIP_SEES = by_transformers("SiglipImageProcessorPil", "siglip.image_processing_pil_siglip", size=SIGLIP_SIZE)
# As Meta's own evaluation of DINOv2, and its repositories on the hub, prepare pictures.
DINOV2 = {
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": (0.485, 0.456, 0.406),
    "image_std": (0.229, 0.224, 0.225),
}
DINOV2_SEES = by_transformers("BitImageProcessorPil", "bit.image_processing_pil_bit", **DINOV2)


def by_open_clip(fit: str, size: int = 224, **normalization: object) -> Callable[[Image.Image], Seen]:
    """What open_clip's transform makes of a picture; its last two steps make a tensor and normalize it."""

    def sees(image: Image.Image) -> Seen:
        from open_clip.transform import image_transform

        steps = image_transform(size, is_train=False, resize_mode=fit, **normalization).transforms
        for step in steps[:-2]:
            image = step(image)
        return np.asarray(image), steps[-1](steps[-2](image))

    return sees


def with_processor(save: Callable[[nn.Module, Path], Path], **config: object) -> Callable[[nn.Module, Path], Path]:
    """Save a model and the preprocessor_config.json that transformers has beside it."""

    def both(model: nn.Module, folder: Path) -> Path:
        path = save(model, folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
        return path

    return both


def clip_processor() -> dict[str, object]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": OPENAI_MEAN,
        "image_std": OPENAI_STD,
    }


def dinov2_processor() -> dict[str, object]:
    return {"image_processor_type": "BitImageProcessor", "do_center_crop": True, **DINOV2}


def siglip_processor() -> dict[str, object]:
    half = (0.5, 0.5, 0.5)
    named = {"image_processor_type": "SiglipImageProcessor", "size": SIGLIP_SIZE, "resample": 3}
    return named | {"image_mean": half, "image_std": half}


def as_open_clip(name: str, quick_gelu: bool = False, **preprocess: object) -> Callable[[nn.Module, Path], Path]:
    """Save as open_clip does for the hub: weights under that name, and open_clip_config.json."""

    def save(model: nn.Module, folder: Path) -> Path:
        folder.mkdir(parents=True)
        path, state = folder / name, model.state_dict()
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        config = {"model_cfg": {"quick_gelu": quick_gelu, "vision_cfg": model.given}, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        return path

    return save


def as_openai(model: nn.Module, folder: Path) -> Path:
    """Save as OpenAI did: 16-bit matrices, and three numbers among the tensors. Nothing lies beside it."""
    folder.mkdir(parents=True)
    from open_clip.model import convert_weights_to_fp16

    convert_weights_to_fp16(model)
    numbers = {"input_resolution": 224, "context_length": 8, "vocab_size": 64}
    torch.save(model.state_dict() | {name: torch.tensor(value) for name, value in numbers.items()}, folder / "clip.pt")
    model.float()
    return folder / "clip.pt"


def as_meta(model: nn.Module, folder: Path) -> Path:
    """Save as Meta did: a state dict and nothing else."""
    folder.mkdir(parents=True)
    torch.save(metas_names(model), folder / "dinov2_vits14_reg4_pretrain.pth")
    return folder / "dinov2_vits14_reg4_pretrain.pth"


B32 = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}
B16 = B32 | {"patch_size": 16}
TOWER = {"timm_model_name": "vit_base_patch32_siglip_256", "image_size": 256, "timm_pool": "map", "timm_proj": "none"}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
OWNERS = {
    "OpenAI CLIP, transformers": Owner(
        "vit_base_patch32_clip_quickgelu_224.openai",
        clip,
        with_processor(save_transformers, **clip_processor()),
        CLIP_SEES,
        transformers_blocks,
    ),
    "OpenAI CLIP, its own file": Owner(
        "vit_base_patch32_clip_quickgelu_224.openai",
        lambda: open_clip_model(quick_gelu=True, **B32),
        as_openai,
        by_open_clip("shortest"),
        open_clip_blocks,
        (("fit", "crop"), ("crop_share", 1.0)),
    ),
    "LAION CLIP, transformers": Owner(
        "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m",
        lambda: clip("gelu", width=256, layers=10, heads=4, patch=16),
        with_processor(save_transformers, **clip_processor()),
        CLIP_SEES,
        transformers_blocks,
    ),
    "LAION CLIP, open_clip": Owner(
        "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m",
        lambda: open_clip_model(image_size=224, layers=10, width=256, patch_size=16),
        as_open_clip("open_clip_model.safetensors", mean=OPENAI_MEAN, std=OPENAI_STD),
        by_open_clip("shortest"),
        open_clip_blocks,
    ),
    "BioCLIP, open_clip": Owner(
        "vit_base_patch16_clip_224.openai",
        lambda: open_clip_model(**B16),
        as_open_clip("open_clip_pytorch_model.bin", mean=OPENAI_MEAN, std=OPENAI_STD),
        by_open_clip("shortest"),
        open_clip_blocks,
    ),
    "SigLIP, transformers": Owner(
        "vit_base_patch32_siglip_256.v2_webli",
        siglip,
        with_processor(save_transformers, **siglip_processor()),
        SIGLIP_SEES,
        transformers_blocks,
    ),
    "SigLIP, open_clip": Owner(
        "vit_base_patch32_siglip_256.v2_webli",
        lambda: open_clip_model(**TOWER),
        as_open_clip("open_clip_model.safetensors", resize_mode="squash", **HALF),
        by_open_clip("squash", size=256, **HALF),
        open_clip_blocks,
    ),
    "DINOv2 with registers, transformers": Owner(
        "vit_small_patch14_reg4_dinov2.lvd142m",
        dinov2,
        with_processor(save_transformers, **dinov2_processor()),
        DINOV2_SEES,
        transformers_blocks,
    ),
    "DINOv2 with registers, Meta": Owner(
        "vit_small_patch14_reg4_dinov2.lvd142m",
        dinov2,
        as_meta,
        DINOV2_SEES,
        transformers_blocks,
        (("image_size", 224), ("crop_share", 0.875)),
    ),
    "DINOv2 at its own size, transformers": Owner(
        "vit_small_patch14_dinov2.lvd142m",
        lambda: dinov2(registers=0, size=224),
        with_processor(save_transformers, **dinov2_processor()),
        DINOV2_SEES,
        transformers_blocks,
    ),
}


def warnings(model: VisionModel) -> list[str]:
    return [notice.text for notice in model.card.notices if notice.level == "warning"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWNERS)
def test_from_a_file_of_pixels_to_blocks_as_the_owner(tmp_path: Path, name: str) -> None:
    owner = OWNERS[name]
    theirs = owner.model()
    weights = owner.save(theirs, tmp_path / "owner")
    ours = prepared(tmp_path / "ours", owner.architecture, weights, **dict(owner.settings))
    assert [text for text in warnings(ours) if "nothing beside them says" not in text] == []

    paths = photographs(tmp_path / "pictures")
    seen = torch.stack([pixels(path, ours.card) for path in paths])
    expected = [owner.sees(Image.open(path).convert("RGB")) for path in paths]
    for path, picture, (their_picture, _) in zip(paths, seen, expected, strict=True):
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), their_picture), path.name

    seen, expected = seen[:2], expected[:2]
    layers = [0, ours.card.depth // 2, ours.card.depth - 1]
    read = ours.read(seen, [HookPoint(layer) for layer in layers])
    images = torch.stack([normalized for _, normalized in expected])
    for layer, tokens in zip(layers, owner.blocks(theirs, images, layers), strict=True):
        assert tokens.std() > 0.5  # every part of a block moves what is compared
        assert (read[HookPoint(layer)] - tokens).abs().max() < SAME_ACTIVATIONS, layer
    assert (ours.logits(ours(seen)) - pooled(theirs, images)).abs().max() < SAME_ACTIVATIONS


def test_what_is_cut_differs_from_transformers_by_one_pixel_at_most(tmp_path: Path) -> None:
    """Of an odd remainder open_clip, timm and torchvision leave the even half on the left, transformers the smaller."""
    generator = np.random.default_rng(0)
    card = Preprocessed()
    for remainder, shift in ((1, 0), (3, 1), (5, 0), (7, 1), (8, 0)):
        path = tmp_path / f"{remainder}.png"
        Image.fromarray(generator.integers(0, 256, (224, 224 + remainder, 3), dtype=np.uint8)).save(path)
        ours = pixels(path, card).permute(1, 2, 0).numpy()
        assert np.array_equal(ours, by_open_clip("shortest")(Image.open(path))[0])
        theirs = CLIP_SEES(Image.open(path))[0]
        assert np.array_equal(ours[:, : 224 - shift], theirs[:, shift:]), remainder
        assert np.array_equal(ours, theirs) is (shift == 0)


@dataclass(frozen=True)
class Preprocessed:
    """How CLIP prepares pictures."""

    image_size: tuple[int, int] = (224, 224)
    fit: str = "crop"
    crop_share: float = 1.0
    interpolation: str = "bicubic"
