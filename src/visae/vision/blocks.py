"""Transformers: a row of blocks that all read and write the same tokens.

timm's families differ in what they hand to their blocks beside the tokens (rotary embeddings, one for all blocks or
one a block; relative position biases) and in what comes before and after. None of this is repeated here: a shallow
copy of the model, with some blocks replaced, runs timm's own forward_features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from visae.errors import ModelError
from visae.vision.card import LayerShape
from visae.vision.hook_points import NO_CHANGES, Changes, HookPoint

# What of a block's parts ends in the residual stream: timm's blocks add the outputs of these two modules.
_ADDED_BY = {"attention": "drop_path1", "mlp": "drop_path2"}


class Blocks:
    """Reads and resumes a timm model that has `blocks`."""

    family = "blocks"

    def __init__(self, module: Any, image_size: tuple[int, int]) -> None:
        self.module, self.image_size = module, image_size

    @classmethod
    def has(cls, module: Any) -> bool:
        """Whether the model is one: its blocks, tried on a picture, keep the number of tokens to the end."""
        if not (isinstance(getattr(module, "blocks", None), nn.Sequential | nn.ModuleList) and hasattr(module, "norm")):
            return False
        if not (hasattr(module, "num_prefix_tokens") and getattr(module.patch_embed, "grid_size", None)):
            return False
        rows, columns = module.patch_embed.grid_size
        expected = (1, module.num_prefix_tokens + rows * columns, module.embed_dim)
        size = tuple(module.patch_embed.img_size)
        blank, last = torch.zeros(1, 3, *size), HookPoint(len(module.blocks) - 1)
        with torch.no_grad():
            read = cls(module, size).read(blank, [last])[last]
            return tuple(read.shape) == expected == tuple(module.forward_features(blank).shape)

    def shapes(self) -> tuple[LayerShape, ...]:
        """Shape of each layer."""
        shape = LayerShape(self.module.embed_dim, tuple(self.module.patch_embed.grid_size))
        return (shape,) * len(self.module.blocks)

    def d_final(self) -> int:
        """Dimension of the final tokens."""
        return self.module.embed_dim

    def n_prefix(self) -> int:
        """Tokens before the patches."""
        return self.module.num_prefix_tokens

    def has_class_token(self) -> bool:
        """Whether the first token is [CLS]."""
        return getattr(self.module, "cls_token", None) is not None

    def read(self, images: Tensor, points: Sequence[HookPoint]) -> dict[HookPoint, Tensor]:
        """Tokens at hook points, in one forward pass that ends at the deepest."""
        found: dict[HookPoint, Tensor] = {}
        deepest = max(point.layer for point in points)
        with ExitStack() as stack:
            for point in points:
                stack.enter_context(_output_kept(self._tapped(point), found, point))
            blocks = list(self.module.blocks)[: deepest + 1]
            _with_parts(self.module, blocks=self._row(blocks), norm=nn.Identity()).forward_features(images)
        return {point: self.module.norm(found[point]) if point.hook == "norm" else found[point] for point in points}

    def resume(self, tokens: Tensor, after: int, changes: Changes = NO_CHANGES) -> Tensor:
        """Run what comes after block `after`, final norm included; differentiable in `tokens`."""
        later = list(self.module.blocks)[after + 1 :]
        # The blocks before are not run; one blank picture takes their place until the tokens come in.
        blank = torch.zeros(1, 3, *self.image_size, device=tokens.device)
        row = self._row([*(_Pass() for _ in range(after)), _Give(tokens), *later])
        with ExitStack() as stack:
            for layer, change in changes.items():
                stack.enter_context(_output_changed(self.module.blocks[layer], change))
            return _with_parts(self.module, blocks=row).forward_features(blank)

    def final(self, images: Tensor) -> Tensor:
        """Final tokens of the uninterrupted forward pass."""
        return self.module.forward_features(images)

    def logits(self, final: Tensor) -> Tensor:
        """What the model's own head makes of final tokens."""
        return self.module.forward_head(final)

    def _row(self, blocks: list[nn.Module]) -> nn.Module:
        return nn.Sequential(*blocks) if isinstance(self.module.blocks, nn.Sequential) else nn.ModuleList(blocks)

    def _tapped(self, point: HookPoint) -> nn.Module:
        block = self.module.blocks[point.layer]
        if point.hook not in _ADDED_BY:
            return block
        part = getattr(block, _ADDED_BY[point.hook], None)
        if part is None:
            raise ModelError(
                f"studies: hook: {point.hook}: the blocks of this model ({type(block).__name__}) add attention and MLP "
                "to the residual stream together; use hook: residual"
            )
        return part


class _Pass(nn.Module):
    """Stands for a block that is not run."""

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        return tokens


class _Give(nn.Module):
    """Stands for a block whose output is known."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self.tokens


def _with_parts(module: Any, **parts: nn.Module) -> Any:
    """Shallow copy of a module that shares all but some parts; the module itself stays as it is."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, **parts}
    return twin


@contextmanager
def _output_changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _output_kept(module: nn.Module, found: dict[HookPoint, Tensor], point: HookPoint) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _module, _inputs, output: found.update({point: output}))
    try:
        yield
    finally:
        handle.remove()
