"""Where in a model activations are read: after which block, and what of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from visae.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# By layer: what becomes of its tokens (b, n_tokens, d_model) before a forward pass goes on.
Changes = Mapping[int, "Callable[[Tensor], Tensor]"]
NO_CHANGES: Changes = {}

Hook = Literal["residual", "attention", "mlp", "norm"]


@dataclass(frozen=True, order=True)
class HookPoint:
    """One place that activations are read from; its text form (`10`, `10-attention`) names folders.

    Attributes
    ----------
    layer
        Block (of a convolutional network: stage), counted from 0.
    hook
        `residual`: the residual stream after the block. `attention`, `mlp`: what that part of the block adds to it,
        after its output projection, layer scale and (where the block norms last) norm. `norm`: the residual stream
        after the block as the model's final norm sees it.
    """

    layer: int
    hook: str = "residual"

    def __str__(self) -> str:
        return str(self.layer) if self.hook == "residual" else f"{self.layer}-{self.hook}"

    @classmethod
    def parse(cls, text: str | int) -> HookPoint:
        """Read the text form.

        Raises
        ------
        ConfigError
            If it is none.
        """
        layer, _, hook = str(text).partition("-")
        if not layer.isdecimal() or hook not in ("", *get_args(Hook)):
            raise ConfigError(
                f"layer: {text!r}: write a block's number, or number-hook with {', '.join(get_args(Hook))}"
            )
        return cls(int(layer), hook or "residual")
