"""A frozen timm model: read its tokens at any layer, and resume the forward pass from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.files import atomic_path, file_sha256, write_json
from visae.vision.blocks import Blocks
from visae.vision.card import LayerShape, ModelCard
from visae.vision.hook_points import NO_CHANGES, Changes, HookPoint
from visae.vision.stages import Stages
from visae.vision.torchvision_guard import allow_cpu_torch
from visae.vision.weights import created, fetched

# How the layers of a kind of network are read, in the order in which they are tried.
FAMILIES: tuple[type[Blocks] | type[Stages], ...] = (Blocks, Stages)

__all__ = ["FAMILIES", "HookPoint", "LayerShape", "ModelCard", "VisionModel", "load_model", "prepare_model"]


class VisionModel(nn.Module):
    """A frozen timm model with its card.

    Tokens are (batch, n_prefix + n_patches, d_model) throughout, prefix tokens first, patches row by row.
    """

    def __init__(self, module: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.module: Any = module.eval().requires_grad_(False)
        self.card = card
        family = next(family for family in FAMILIES if family.family == card.family)
        self._layers = family(self.module, card.image_size)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def resumed(self, layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the network after a layer: from its tokens to final ones."""
        return partial(self.resume, after=layer)

    def normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (batch, 3, height, width) into what the network was trained on."""
        mean = torch.tensor(self.card.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.card.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.float().div_(255) - mean) / std

    @torch.inference_mode()
    def read(self, pixels: torch.Tensor, points: Sequence[HookPoint]) -> dict[HookPoint, torch.Tensor]:
        """Tokens at hook points, in one forward pass that ends at the deepest.

        Parameters
        ----------
        pixels
            uint8 (batch, 3, height, width).
        points
            Where to read.

        Returns
        -------
        dict
            Hook point to tensor (batch, n_prefix + n_patches, d_model): float32, or bfloat16 where the card's
            precision says so.
        """
        with self._autocast(pixels.device):
            return self._layers.read(self.normalized(pixels), points)

    def resume(self, tokens: torch.Tensor, after: int, changes: Changes = NO_CHANGES) -> torch.Tensor:
        """Run what comes after layer `after`, final norm included: what timm's forward_features would return.

        Differentiable in `tokens`; the weights stay frozen.

        Parameters
        ----------
        changes
            What becomes of the tokens of later layers before the pass goes on from there.
        """
        return self._layers.resume(tokens, after, changes)

    def final_norm(self, tokens: torch.Tensor) -> torch.Tensor:
        """Final tokens of the last layer's."""
        return self._layers.resume(tokens, self.card.depth - 1)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Final tokens of the uninterrupted forward pass (timm's forward_features)."""
        return self._layers.final(self.normalized(pixels))

    def logits(self, final: torch.Tensor) -> torch.Tensor:
        """What the model's own head makes of final tokens: (batch, n_classes), pooled features without a head."""
        return self._layers.logits(final)

    def _autocast(self, device: torch.device) -> AbstractContextManager:
        return torch.autocast(device.type, torch.bfloat16) if self.card.precision == "bfloat16" else nullcontext()


def prepare_model(settings: ModelIdentity, weights_path: Path, card_path: Path, seed: int = 0) -> ModelCard:
    """Get a model's weights from where its settings say, and write them beside its card.

    Raises
    ------
    ModelError
        If timm does not know the architecture, its layers cannot be read, or the weights do not fit.
    """
    allow_cpu_torch()
    module, origin = fetched(settings, seed)
    module.eval()
    with atomic_path(weights_path) as temporary:
        state = module.state_dict()
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, temporary)
    card = card_of(module, settings, origin, file_sha256(weights_path))
    write_json(card_path, asdict(card))
    return card


def load_model(card_path: str | Path, device: str | torch.device = "cpu") -> VisionModel:
    """Load the model whose model.json and weights.safetensors lie in one folder.

    Raises
    ------
    ModelError
        If the weights are not the ones that the card describes.
    """
    allow_cpu_torch()
    card = ModelCard.read(card_path)
    weights_path = Path(card_path).with_name("weights.safetensors")
    if not weights_path.is_file():
        raise ModelError(f"{weights_path} is missing; make it again with: snakemake {card_path} --force")
    module = created(card.architecture, card.image_size, pretrained=False)
    if module.num_classes != card.n_classes:
        module.reset_classifier(card.n_classes)
    try:
        module.load_state_dict(load_file(weights_path))
    except Exception as error:  # a damaged file, or another model's
        raise ModelError(
            f"{weights_path} is not what {Path(card_path).name} describes ({error}); make it again with: "
            f"snakemake {card_path} --force"
        ) from error
    return VisionModel(module, card).to(device)


def card_of(module: Any, settings: ModelIdentity, origin: str, weights_sha256: str) -> ModelCard:
    """Describe a timm model.

    Raises
    ------
    ModelError
        If it has no layers that can be read.
    """
    pretrained = module.pretrained_cfg
    size = settings.height_and_width
    family = next((family for family in FAMILIES if family.has(module)), None)
    if family is None:
        raise ModelError(
            f"models: architecture: {settings.architecture} ({type(module).__name__}) has neither blocks of equal "
            "tokens nor stages of feature grids to read"
        )
    layers = family(module, size)
    shapes = layers.shapes()
    if any(side % cells for shape in shapes for side, cells in zip(size, shape.grid, strict=True)):
        raise ModelError(
            f"models: image_size: {size[0]} x {size[1]} px do not divide into the grids of {settings.architecture} "
            f"({', '.join(sorted({f'{shape.grid[0]} x {shape.grid[1]}' for shape in shapes}))}); a multiple of 32 px "
            "suits most convolutional networks"
        )
    return ModelCard(
        architecture=settings.architecture,
        weights=settings.weights,
        weights_origin=origin,
        weights_sha256=weights_sha256,
        family=family.family,
        layers=shapes,
        d_final=layers.d_final(),
        n_classes=module.num_classes,
        image_size=size,
        fit=settings.fit,
        precision=settings.precision,
        has_class_token=layers.has_class_token(),
        n_prefix=layers.n_prefix(),
        mean=tuple(pretrained.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(pretrained.get("std", (0.229, 0.224, 0.225))),
        interpolation=pretrained.get("interpolation", "bicubic"),
    )
