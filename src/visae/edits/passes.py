"""Passes of edited pictures: many edits in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def in_shared_batches(
    items: Iterable[Tensor], forward: Callable[[Tensor], Tensor], batch_size: int
) -> Iterator[Tensor]:
    """Run items, each some pictures (k, n_tokens, d_model), through the network, several of them in one batch.

    Items are taken from the iterable only as batches fill, so memory does not grow with their number.

    Parameters
    ----------
    forward
        From a batch to one result a row.
    batch_size
        Pictures in a batch; an item that has more is a batch of its own.

    Yields
    ------
    Tensor
        Results of each item, (k, ...), in order; an item without pictures gives an empty one.
    """
    waiting: list[Tensor] = []
    for item in items:
        if waiting and sum(len(x) for x in waiting) + len(item) > batch_size:
            yield from _flushed(waiting, forward)
            waiting = []
        waiting.append(item)
    if waiting:
        yield from _flushed(waiting, forward)


def _flushed(waiting: list[Tensor], forward: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    batch = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
    results = forward(batch) if len(batch) else batch[:, 0, 0]
    yield from results.split([len(item) for item in waiting])
