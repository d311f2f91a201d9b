"""Forward passes of edited pictures: resumed from the lowest edited layer, many edits in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from visae.edits.edit import Edit, Site, edited
from visae.errors import DataError
from visae.vision.model import HookPoint, VisionModel

# Which rows of a batch belong to which item of a queue: (number of the item, rows).
Owners = list[tuple[int, slice]]


def in_shared_batches(
    items: Iterable[Tensor], forward: Callable[[Tensor, Owners], Tensor], batch_size: int
) -> Iterator[Tensor]:
    """Run items, each some pictures (k, n_tokens, d_model), through the network, several of them in one batch.

    Items are taken from the iterable only as batches fill, so memory does not grow with their number.

    Parameters
    ----------
    forward
        From a batch, and who owns which of its rows, to one result a row.
    batch_size
        Pictures in a batch; an item that has more is a batch of its own.

    Yields
    ------
    Tensor
        Results of each item, (k, ...), in order; an item without pictures gives an empty one.
    """
    waiting: list[tuple[int, Tensor]] = []
    for number, item in enumerate(items):
        if waiting and sum(len(x) for _, x in waiting) + len(item) > batch_size:
            yield from _flushed(waiting, forward)
            waiting = []
        waiting.append((number, item))
    if waiting:
        yield from _flushed(waiting, forward)


def _flushed(waiting: list[tuple[int, Tensor]], forward: Callable[[Tensor, Owners], Tensor]) -> Iterator[Tensor]:
    owners, start = [], 0
    for number, item in waiting:
        owners.append((number, slice(start, start + len(item))))
        start += len(item)
    batch = torch.cat([item for _, item in waiting]) if len(waiting) > 1 else waiting[0][1]
    results = forward(batch, owners) if len(batch) else batch[:, 0, 0]
    for _, rows in owners:
        yield results[rows]


@torch.inference_mode()
def edited_passes(
    model: VisionModel,
    sites: Iterable[Site],
    tokens: Mapping[int, Tensor],
    runs: Sequence[Sequence[Edit]],
    *,
    predicted: Tensor | None = None,
    batch_size: int = 32,
) -> Iterator[Tensor]:
    """Final tokens of the same pictures after each of several runs.

    A run is a sequence of edits, at one layer or at several. The network is resumed from the run's lowest layer; an
    edit of a later layer is done when the pass gets there, on codes of the stream as it then is. Edits of one layer
    are done in their order. Pictures that a run leaves as they are are not run again.

    Parameters
    ----------
    sites
        The layers that are edited.
    tokens
        Unedited tokens (b, n_tokens, d_model) of each layer at which some run begins: from a store, or from
        `model.read`, which gives several layers in one forward pass.
    runs
        Edits of each run; no edits give the unedited pass.
    predicted
        (b, n_patches), for edits of `PredictedAs`.

    Yields
    ------
    Tensor
        (b, n_tokens, d_final) of each run, in order.
    """
    at = {site.layer: site for site in sites}
    for run in runs:
        _check(model, run, at, tokens)
    # Runs that begin at the same layer share batches.
    for start, numbers in groupby(range(len(runs)), key=lambda number: _start(runs[number], tokens)):
        own = [runs[number] for number in numbers]
        yield from _resumed(model, at, tokens[start], start, own, predicted, batch_size)


def _resumed(
    model: VisionModel,
    sites: Mapping[int, Site],
    tokens: Tensor,
    start: int,
    runs: Sequence[Sequence[Edit]],
    predicted: Tensor | None,
    batch_size: int,
) -> Iterator[Tensor]:
    """Final tokens of runs that all begin at one layer, whose unedited tokens are given."""
    everyone = torch.arange(len(tokens), device=tokens.device)
    touched: list[Tensor] = []

    def after_edits(run: Sequence[Edit], layer: int, stream: Tensor, pictures: Tensor) -> Tensor:
        for edit in run:
            if edit.layer == layer:
                seen = None if predicted is None else predicted[pictures]
                stream = edited(stream, edit, sites[layer], model.card.n_prefix, seen)
        return stream

    def begun() -> Iterator[Tensor]:
        for run in runs:
            stream = after_edits(run, start, tokens, everyone)
            goes_on = any(edit.layer > start for edit in run)
            touched.append(everyone if goes_on else everyone[(stream != tokens).flatten(1).any(dim=1)])
            yield stream[touched[-1]]

    def forward(batch: Tensor, owners: Owners) -> Tensor:
        def change(stream: Tensor, layer: int) -> Tensor:
            parts = [after_edits(runs[number], layer, stream[rows], touched[number]) for number, rows in owners]
            return torch.cat(parts)

        later = {edit.layer for number, _ in owners for edit in runs[number]} - {start}
        return model.resume(batch, start, {layer: partial(change, layer=layer) for layer in later})

    unedited = None
    for number, result in enumerate(in_shared_batches(begun(), forward, batch_size)):
        if len(touched[number]) < len(tokens):
            unedited = model.resume(tokens, start) if unedited is None else unedited
            final = unedited.clone()
            if len(result):
                final[touched[number]] = result
            yield final
        else:
            yield result


def _start(run: Sequence[Edit], tokens: Mapping[int, Tensor]) -> int:
    """Layer that a run is resumed from."""
    return min((edit.layer for edit in run), default=min(tokens))


def _check(model: VisionModel, run: Sequence[Edit], sites: Mapping[int, Site], tokens: Mapping[int, Tensor]) -> None:
    """Raise DataError or ModelError where a run's layers are not there."""
    for edit in run:
        if edit.layer not in sites:
            raise DataError(f"edit: layer: {edit.layer}: an SAE is given for layers {sorted(sites)} only")
        model.card.check(HookPoint(edit.layer), "edit: layer")
        model.card.token_slice(sites[edit.layer].sae.place.tokens)
    if _start(run, tokens) not in tokens:
        raise DataError(
            f"edit: layer: {_start(run, tokens)}: a run begins there, but tokens are given of {sorted(tokens)}"
        )
