"""A frozen timm model: read its tokens at any layer, and resume the forward pass from there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.files import atomic_path, file_sha256, write_json
from visae.notices import log_notices
from visae.products import speed_up_linears
from visae.vision.assumptions import activation_function, assumed, own_size
from visae.vision.card import LayerShape, ModelCard
from visae.vision.facts import model_facts
from visae.vision.hook_points import NO_CHANGES, Changes, HookPoint
from visae.vision.origins import Origin, beside
from visae.vision.owners import set_activation
from visae.vision.timm_import import import_timm
from visae.vision.trial import FAMILIES, measured, tried
from visae.vision.weights import created, fetched

logger = logging.getLogger(__name__)

# What timm's configurations leave out is ImageNet's.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

__all__ = ["FAMILIES", "HookPoint", "LayerShape", "ModelCard", "VisionModel", "load_model", "prepare_model"]


class VisionModel(nn.Module):
    """A frozen timm model with its card.

    Tokens are (batch, n_prefix + n_patches, d_model) throughout, prefix tokens first, patches row by row.
    """

    def __init__(self, module: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.module: Any = module.eval().requires_grad_(False)
        speed_up_linears(self.module)
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
        return self.followed(self.normalized(pixels), points)

    def followed(self, images: torch.Tensor, points: Sequence[HookPoint]) -> dict[HookPoint, torch.Tensor]:
        """Tokens as `read` gives them, of pictures (batch, 3, height, width) that are `normalized`.

        Differentiable in the pictures; the weights stay frozen.
        """
        with self._autocast(images.device):
            found = self._layers.read(images, points)
        for point, tokens in found.items():
            self.card.check_tokens(point, tokens.shape)
        return found

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


def prepare_model(
    settings: ModelIdentity,
    weights_path: Path,
    card_path: Path,
    seed: int = 0,
    read: list[str] | None = None,
    edited: list[str] | None = None,
) -> ModelCard:
    """Get a model's weights from where its settings say, and write them beside its card.

    Parameters
    ----------
    read, edited
        Layers (with hooks, as `10-attention`) that will be read, and layers whose patches will be edited.

    Raises
    ------
    ModelError
        If timm does not know the architecture, the weights do not fit, or its layers cannot be read or edited.
    """
    import_timm()
    found = beside(settings.weights)
    module, origin = fetched(replace(settings, image_size=_as_setting(own_size(settings, found))), seed)
    module.eval()
    card = tried(module, card_of(module, settings, origin, "", found))
    card.check_uses(read or [], edited or [])
    with atomic_path(weights_path) as temporary:
        state = module.state_dict()
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, temporary)
    card = replace(card, weights_sha256=file_sha256(weights_path))
    write_json(card_path, asdict(card))
    _log(card)
    return card


def _as_setting(size: tuple[int, int] | None) -> list[int] | None:
    return None if size is None else list(size)


def _log(card: ModelCard) -> None:
    """Say what is assumed of a model, and all its notices."""
    for what, told in model_facts(card).items():
        logger.info("%s: %s", what, told)
    log_notices(card.architecture, card.notices)


def load_model(card_path: str | Path, device: str | torch.device = "cpu") -> VisionModel:
    """Load the model whose model.json and weights.safetensors lie in one folder.

    Raises
    ------
    ModelError
        If the weights are not the ones that the card describes.
    """
    import_timm()
    card = ModelCard.read(card_path)
    weights_path = Path(card_path).with_name("weights.safetensors")
    if not weights_path.is_file():
        raise ModelError(f"{weights_path} is missing; make it again with: snakemake {card_path} --force")
    module = created(card.architecture, card.image_size, pretrained=False)
    if module.num_classes != card.n_classes:
        module.reset_classifier(card.n_classes)
    if card.activation_function is not None and card.activation_function != activation_function(module):
        set_activation(module, card.activation_function)
    try:
        module.load_state_dict(load_file(weights_path))
    except Exception as error:  # a damaged file, or another model's
        raise ModelError(
            f"{weights_path} is not what {Path(card_path).name} describes ({error}); make it again with: "
            f"snakemake {card_path} --force"
        ) from error
    return VisionModel(module, card).to(device)


def card_of(
    module: Any, settings: ModelIdentity, origin: str, weights_sha256: str, found: Origin | None = None
) -> ModelCard:
    """Describe a timm model; whether its layers can be read and edited is taken for granted.

    Parameters
    ----------
    found
        What lies beside its weights.

    Raises
    ------
    ModelError
        If it has no layers that can be read, or sees pictures in a way that is not supported.
    """
    assumptions = assumed(module, settings, found or Origin())
    transform = assumptions.transform
    size = transform.image_size or tuple(module.pretrained_cfg["input_size"][1:])
    family, tokens = measured(module, settings.architecture, size)
    shapes = tokens.layers
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
        family=family,
        layers=shapes,
        d_final=tokens.d_final,
        n_classes=module.num_classes,
        image_size=size,
        fit=transform.fit or "crop",
        precision=settings.precision,
        has_class_token=tokens.has_class_token,
        n_prefix=tokens.n_prefix,
        mean=transform.mean or IMAGENET_MEAN,
        std=transform.std or IMAGENET_STD,
        interpolation=transform.interpolation or "bicubic",
        crop_share=transform.crop_share or 1.0,
        activation_function=assumptions.activation_function,
        tag=assumptions.tag,
        hub_id=assumptions.hub_id,
        license=assumptions.license,
        timm_notes=assumptions.timm_notes,
        notices=assumptions.notices,
    )
