"""Convolutional and hierarchical networks: stages of feature grids, each cell of a grid a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from visae.errors import ModelError
from visae.vision.card import LayerShape
from visae.vision.hook_points import NO_CHANGES, Changes, HookPoint


class Stages:
    """Reads and resumes any timm model that lists its stages in `feature_info`."""

    family = "stages"

    def __init__(self, module: Any, image_size: tuple[int, int]) -> None:
        self.module, self.image_size = module, image_size
        self._names = [entry["module"] for entry in module.feature_info]

    @classmethod
    def has(cls, module: Any) -> bool:
        """Whether the model lists its stages."""
        return bool(getattr(module, "feature_info", None)) and hasattr(module, "forward_intermediates")

    def shapes(self) -> tuple[LayerShape, ...]:
        """Shape of each stage's grid."""
        points = [HookPoint(number) for number in range(len(self._names))]
        with torch.no_grad():
            grids = self._grids(self._blank("cpu"), points)
        return tuple(LayerShape(grid.shape[1], (grid.shape[2], grid.shape[3])) for grid in grids)

    def d_final(self) -> int:
        """Dimension of the final tokens."""
        return self.final(self._blank("cpu")).shape[2]

    def n_prefix(self) -> int:
        """Tokens before the patches: none."""
        return 0

    def has_class_token(self) -> bool:
        """Whether there is a [CLS] token: never."""
        return False

    def read(self, images: Tensor, points: Sequence[HookPoint]) -> dict[HookPoint, Tensor]:
        """Tokens of stages, row-major over their grids, in one forward pass that ends at the deepest."""
        return {point: _as_tokens(grid) for point, grid in zip(points, self._grids(images, points), strict=True)}

    def resume(self, tokens: Tensor, after: int, changes: Changes = NO_CHANGES) -> Tensor:
        """Run what comes after stage `after`; differentiable in `tokens`."""

        def replaced(layer: int, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
            def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
                return self._like(change(self._tokens(layer, output)), output)

            return self.module.get_submodule(self._names[layer]).register_forward_hook(hook)

        # One blank picture runs up to the stage, whose output is then replaced.
        handles = [replaced(layer, change) for layer, change in {after: lambda _: tokens, **changes}.items()]
        try:
            return self.final(self._blank(tokens.device))
        finally:
            for handle in handles:
                handle.remove()

    def final(self, images: Tensor) -> Tensor:
        """Final tokens of the uninterrupted forward pass."""
        features = self.module.forward_features(images)
        if not isinstance(features, Tensor) or features.ndim != 4:
            raise ModelError("it has neither blocks of equal tokens nor feature grids")
        return features.flatten(1, 2) if self._is_channels_last(features) else _as_tokens(features)

    def logits(self, final: Tensor) -> Tensor:
        """What the model's own head makes of final tokens."""
        return self.module.forward_head(self._like(final, self._final_features))

    @cached_property
    def _final_features(self) -> Tensor:
        """Final features of a blank picture, in the model's own layout."""
        with torch.no_grad():
            return self.module.forward_features(self._blank(next(self.module.parameters()).device))

    def _grids(self, images: Tensor, points: Sequence[HookPoint]) -> list[Tensor]:
        wanted = sorted({point.layer for point in points})
        found = self.module.forward_intermediates(
            images, indices=wanted, intermediates_only=True, output_fmt="NCHW", stop_early=True
        )
        if any(not isinstance(grid, Tensor) or grid.ndim != 4 for grid in found):
            raise ModelError("it has neither blocks of equal tokens nor feature grids")
        by_layer = dict(zip(wanted, found, strict=True))
        return [by_layer[point.layer] for point in points]

    def _tokens(self, layer: int, grid: Tensor) -> Tensor:
        """A stage's output (b, n, d), row-major over its grid."""
        if grid.ndim != 4:
            raise ModelError("its stages are no grids")
        channels = self.module.feature_info[layer]["num_chs"]
        return grid.flatten(1, 2) if self._is_channels_last(grid, channels) else grid.flatten(2).transpose(1, 2)

    def _like(self, tokens: Tensor, native: Tensor) -> Tensor:
        """Tokens (b, n, d) as a grid in the layout of a tensor of that stage."""
        if self._is_channels_last(native, tokens.shape[2]):
            return tokens.unflatten(1, native.shape[1:3])
        return tokens.transpose(1, 2).unflatten(2, native.shape[2:4])

    def _is_channels_last(self, grid: Tensor, channels: int | None = None) -> bool:
        channels = channels or self.module.num_features
        return grid.shape[1] != channels and grid.shape[3] == channels

    def _blank(self, device: str | torch.device) -> Tensor:
        return torch.zeros(1, 3, *self.image_size, device=device)


def _as_tokens(grid: Tensor) -> Tensor:
    """A grid (b, d, rows, columns) as tokens (b, n, d), row-major; differentiable."""
    if grid.requires_grad:
        # Of a single picture, the gradient of what is transposed has strides that batch norm's backward pass on a CPU
        # (torch 2.13) takes for others: it then mixes up channels and places, and says nothing.
        grid.register_hook(Tensor.contiguous)
    return grid.flatten(2).transpose(1, 2)
