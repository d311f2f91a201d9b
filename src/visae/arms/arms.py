"""The arms of an experiment: one edit that is claimed to matter, and the controls that it has to beat.

All arms edit the same patches. An arm has one or several draws, each a `Change`: what is added to a patch at a scale.
It is run at its natural size, and with the length of the automatic arm's change on each patch (`matched`). To add an
arm, name it in `config.interventions.Control` and make its draws where those of the experiment are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visae.arms.changes import AsLong, Draws, Situation
from visae.config.interventions import AUTOMATIC, NATURAL, SIZES
from visae.edits.edit import moved, with_rows
from visae.edits.passes import in_shared_batches

# Their edit is the same at every scale, so at natural size it is run once and reported at each.
WITHOUT_SCALE = ("none", "reconstruction")


@dataclass(frozen=True)
class Outcome:
    """What a batch looks like after one edit.

    Attributes
    ----------
    size
        One of SIZES. The automatic arm and `none` have a natural size only, to which the matched one is equal.
    scales
        Scales that the outcome stands for.
    draws
        How many draws the arm has; shares are means over them.
    change
        (n, d_model) what was added to the edited patches.
    after
        What `read` gives, (b, ...).
    """

    arm: str
    size: str
    scales: tuple[float, ...]
    draw: int
    draws: int
    change: Tensor
    after: Tensor


@dataclass(frozen=True)
class Unedited:
    """A batch before it is edited.

    Attributes
    ----------
    tokens, patches
        (b, n_tokens, d_model), and which of the last ones are edited: bool (b, n_patches), or (b, n_tokens) where
        others than patches are.
    before
        What `read(tokens)` gave.
    here
        What arms know of the edited patches.
    """

    tokens: Tensor
    patches: Tensor
    before: Tensor
    here: Situation


def outcomes(
    batch: Unedited,
    draws: Draws,
    scales: tuple[float, ...],
    *,
    read: Callable[[Tensor], Tensor],
    batch_size: int = 32,
    sizes: Sequence[str] = SIZES,
) -> Iterator[Outcome]:
    """Edit a batch by every arm, size, scale and draw, and read the results.

    Pictures that an edit leaves as they are are not run again, and edits of few pictures share a batch.

    Parameters
    ----------
    batch
        What is edited.
    read
        Resumes the network from tokens and reads a head.
    sizes
        Of the controls; the automatic arm is run at its natural one.
    """
    tokens, patches, here = batch.tokens, batch.patches, batch.here
    # Run in full, and in the batch in which `before` was read, as proof that resuming gives the same again.
    nothing = torch.zeros_like(here.rows)
    yield Outcome("none", NATURAL, scales, 0, 1, nothing, read(with_rows(tokens, patches, here.rows)))
    plan = list(_plan(draws, scales, sizes))
    changes: list[Tensor] = []
    touched: list[Tensor] = []

    def edited() -> Iterator[Tensor]:
        for arm, size, group, draw in plan:
            changes.append(_change(here, draws, arm, size, group[0], draw))
            changed = with_rows(tokens, patches, moved(here.rows, changes[-1]))
            touched.append((tokens != changed).flatten(1).any(dim=1))
            yield changed[touched[-1]]

    results = in_shared_batches(edited(), read, batch_size)
    for number, ((arm, size, group, draw), result) in enumerate(zip(plan, results, strict=True)):
        after = batch.before.clone()
        if len(result):
            after[touched[number]] = result
        yield Outcome(arm, size, group, draw, len(draws[arm]), changes[number], after)
        # Those of later edits are still to come; this one is not kept.
        changes[number] = nothing


def _plan(
    draws: Draws, scales: tuple[float, ...], sizes: Sequence[str]
) -> Iterator[tuple[str, str, tuple[float, ...], int]]:
    """Arm, size, scales and draw of each edit; the automatic arm matches itself."""
    for arm, changes in draws.items():
        for size in sizes if arm != AUTOMATIC else (NATURAL,):
            groups = [scales] if arm in WITHOUT_SCALE and size == NATURAL else [(scale,) for scale in scales]
            for group in groups:
                for draw in range(len(changes)):
                    yield arm, size, group, draw


def _change(here: Situation, draws: Draws, arm: str, size: str, scale: float, draw: int) -> Tensor:
    change = draws[arm][draw]
    if size == NATURAL:
        return change(here, scale)
    return AsLong(change, draws[AUTOMATIC][0])(here, scale)
