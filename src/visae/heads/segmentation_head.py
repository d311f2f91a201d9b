"""The segmentation head itself, new or from its files: linear, or with one hidden layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from visae.config.settings import SegmentationHeadSettings
from visae.errors import ModelError
from visae.files import read_json
from visae.heads.tokens import check_origin
from visae.vision.card import ModelCard
from visae.weights import check_names, check_shapes, check_values, read_weights

_HIDDEN = ("hidden.weight", "hidden.bias")


class SegmentationHead(nn.Module):
    """A linear map from patches to class logits, of final tokens or of a hidden layer over them.

    Parameters
    ----------
    weight, bias
        (n_classes, d) and (n_classes,): d is d_model, or the width of the hidden layer.
    n_prefix
        Tokens before the patches.
    grid
        Patches down and across.
    hidden
        None in a linear head, else a Linear over each patch or a Conv2d over the grid; GELU follows.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        n_prefix: int,
        grid: tuple[int, int],
        hidden: nn.Linear | nn.Conv2d | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.hidden = nn.Parameter(weight), nn.Parameter(bias), hidden
        self.n_prefix, self.grid = n_prefix, grid
        self.classes: list[dict[str, Any]] = []
        self.not_learned: list[dict[str, Any]] = []

    @property
    def d_model(self) -> int:
        """Dimension of the tokens that it reads."""
        return (self.weight if self.hidden is None else self.hidden.weight).shape[1]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (b, n_classes, grid_height, grid_width) of final-normed tokens (b, n_tokens, d_model)."""
        patches = tokens[:, self.n_prefix :]
        if isinstance(self.hidden, nn.Conv2d):
            maps = self.hidden(patches.transpose(1, 2).unflatten(2, self.grid))
            patches = functional.gelu(maps.flatten(2).transpose(1, 2))
        elif self.hidden is not None:
            patches = functional.gelu(self.hidden(patches))
        return functional.linear(patches, self.weight, self.bias).transpose(1, 2).unflatten(2, self.grid)


def new_head(settings: SegmentationHeadSettings, card: ModelCard, n_classes: int, seed: int) -> SegmentationHead:
    """Head that gives every class the same logit; a hidden layer is drawn by seed."""
    hidden: nn.Linear | nn.Conv2d | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.kind == "mlp":
            hidden = nn.Linear(card.d_final, settings.hidden)
        if settings.kind == "conv":
            hidden = nn.Conv2d(card.d_final, settings.hidden, 3, padding=1)
    width = card.d_final if hidden is None else settings.hidden
    return SegmentationHead(torch.zeros(n_classes, width), torch.zeros(n_classes), card.n_prefix, card.grid, hidden)


def load_segmentation_head(
    metrics_path: str | Path, card: ModelCard, device: str | torch.device = "cpu"
) -> SegmentationHead:
    """Load the frozen head of a model, whose metrics.json and weights.safetensors lie in one folder.

    `.classes` lists {"id", "name"} in the order of the logits, `.not_learned` those that it has not learned.

    Raises
    ------
    ModelError
        If it was trained on another model's tokens, or its weights are damaged or not those of a head.
    """
    metrics, path = read_json(metrics_path), Path(metrics_path).with_name("weights.safetensors")
    tensors = read_weights(path)
    has_hidden = any(name in tensors for name in _HIDDEN)
    check_names(path, tensors, ("weight", "bias", *(_HIDDEN if has_hidden else ())), of="segmentation head")
    check_values(path, tensors)
    hidden: nn.Linear | nn.Conv2d | None = None
    if has_hidden:
        width, d_model = tensors["hidden.weight"].shape[:2]
        is_linear = tensors["hidden.weight"].ndim == 2
        hidden = nn.Linear(d_model, width) if is_linear else nn.Conv2d(d_model, width, 3, padding=1)
    head = SegmentationHead(tensors["weight"], tensors["bias"], metrics["n_prefix"], tuple(metrics["grid"]), hidden)
    n_classes = len(metrics["classes"])
    own = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    check_shapes(path, tensors, own | {"weight": (n_classes, *own["weight"][1:]), "bias": (n_classes,)})
    head.load_state_dict(tensors)
    head.classes, head.not_learned = metrics["classes"], metrics.get("not_learned", [])
    check_origin(metrics_path, metrics, card)
    found, wanted = (head.d_model, head.n_prefix, head.grid), (card.d_final, card.n_prefix, card.grid)
    if found != wanted:
        raise ModelError(
            f"{metrics_path}: the segmentation head reads {found[0]} values of {found[2][0]} x {found[2][1]} patches "
            f"after {found[1]} prefix tokens, but {card.architecture} gives {wanted[0]} of {wanted[2][0]} x "
            f"{wanted[2][1]} after {wanted[1]}: it is the head of another model; train it again from the last layer "
            "of this one"
        )
    return head.requires_grad_(False).to(device)
