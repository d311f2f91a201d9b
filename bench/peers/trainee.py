"""What a worker makes of its peer: one SAE in training, behind the same few functions whoever trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class CannotRun(Exception):
    """This contender has no such variant; the message says so in the results."""


@dataclass(frozen=True)
class Trainee:
    """What a worker makes of its peer.

    Attributes
    ----------
    step
        One training step on a batch (n, d_model).
    codes
        Codes of a batch, dense (n, width) or only some of its columns; non-zero ones are counted.
    encoder_bias, pre_activations
        What `start_sparse` needs: the bias (width,) that may be changed in place, and what it is added to and is
        part of, (n, width) for a batch.
    dense_codes, decode
        Dense codes (n, width) of a batch, at least as many as its rule of training keeps, and what given codes
        reconstruct, (n, d_model): what a trained SAE is judged by.
    penalty, set_penalty
        Weight of the sparsity penalty that it starts with, and how to change it; of ReLU SAEs.
    finish
        What makes the trained SAE of the one in training.
    """

    step: Callable[[Tensor], object]
    codes: Callable[[Tensor], Tensor]
    encoder_bias: Tensor | None = None
    pre_activations: Callable[[Tensor], Tensor] | None = None
    dense_codes: Callable[[Tensor], Tensor] | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    penalty: float | None = None
    set_penalty: Callable[[float], object] | None = None
    finish: Callable[[], object] = lambda: None


class SomeBatches(Protocol):
    """Batches (size, d_model) by number, without end."""

    size: int

    def __getitem__(self, number: int) -> Tensor: ...


Prepare = Callable[[dict[str, Any], SomeBatches], Trainee]


def warm_up(own: int, steps: int) -> int:
    """Steps of a warm-up: a contender's own, but no more than a tenth of the run."""
    return min(own, steps // 10)
