"""Small random ViTs, pictures, and SAEs trained at places of theirs that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image

from visae.config.saes import TokenKinds
from visae.config.settings import AnySae, ModelIdentity
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.initial import initial_sae
from visae.sae.place import Place
from visae.sae.proof.tokens import PointTokens, Reading, read_tokens
from visae.sae.run import TrainingRun
from visae.vision.model import HookPoint, VisionModel, card_of
from visae.vision.timm_import import import_timm

SIZE = 32
NAME = "vit_tiny_patch16_224"


def small_vit(seed: int = 0, width: int = 48, depth: int = 4) -> VisionModel:
    """Random ViT of 16 patches whose blocks do something: weights larger than those a training starts from."""
    import_timm()
    import timm

    torch.manual_seed(seed)
    shape = {"img_size": SIZE, "patch_size": 8, "embed_dim": width, "depth": depth, "num_heads": 3, "num_classes": 0}
    module = timm.create_model(NAME, pretrained=False, **shape).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "qkv" in name and parameter.ndim > 1:
                parameter.mul_(12)  # attention that looks somewhere, else class tokens are means of all patches
            elif "block" in name and parameter.ndim > 1:
                parameter.mul_(5)
            elif "norm" in name and name.endswith("weight"):
                parameter.mul_(torch.exp(0.4 * torch.randn(parameter.shape)))
            elif "norm" in name:
                parameter.add_(0.4 * torch.randn(parameter.shape))
        module.cls_token.mul_(0).add_(3 * torch.randn(module.cls_token.shape))
    identity = ModelIdentity(architecture=NAME, weights="random", image_size=SIZE)
    return VisionModel(module, card_of(module, identity, "random", f"{seed:064d}"))


def pictures(folder: Path, number: int, seed: int, size: int = SIZE) -> list[str]:
    """Crops of photographs of many scales."""
    generator = np.random.default_rng(seed)
    names = ("brick.png", "grass.png", "gravel.png", "astronaut.png", "coffee.png", "chelsea.png")
    photos = [Image.open(Path(skimage.data_dir) / name).convert("RGB") for name in names]
    folder.mkdir(parents=True)
    for picture in range(number):
        photo = photos[generator.integers(len(photos))]
        side = int(generator.integers(size, min(photo.size)))
        left, upper = (int(generator.integers(length - side + 1)) for length in photo.size)
        crop = photo.crop((left, upper, left + side, upper + side)).resize((size, size))
        crop.save(folder / f"{picture:04}.png")
    return sorted(map(str, folder.glob("*.png")))


def tokens_of(model: VisionModel, points: list[HookPoint], paths: list[str], folder: Path) -> dict:
    """All tokens of pictures at hook points."""
    folder.mkdir()
    return read_tokens(model, points, paths, folder, Reading(1000, 64, 0, 0), "to train on").points


def trained(settings: AnySae, read: PointTokens, point: HookPoint, tokens: TokenKinds, seed: int) -> SparseAutoencoder:
    """SAE of one kind of tokens, trained in memory, that knows its place."""
    chosen = {"patches": slice(read.n_prefix, None), "class": slice(0, 1), "all": slice(None)}[tokens]
    rows = torch.from_numpy(np.array(read.rows[:, chosen])).flatten(0, 1)
    sae = initial_sae(settings, rows, seed)
    run = TrainingRun(settings, sae)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.steps):
        run.advance(rows[torch.randint(len(rows), (settings.batch_size,), generator=generator)])
    sae.place = Place(layer=point.layer, hook=point.hook, tokens=tokens)
    return sae.eval().requires_grad_(False)
