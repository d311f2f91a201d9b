"""What edits do to the log odds of a class, picture by picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from visae.arms.arms import Outcome
from visae.arms.changes import Draws
from visae.config.interventions import NATURAL
from visae.experiments.runner import Batch, Runner
from visae.tasks.counts import ClassCounts
from visae.tasks.task import Task

OFF = 0.0
"""The value that a latent is set to where its effect is measured: what it does by itself, undone."""


@dataclass(frozen=True)
class Odds:
    """What each edit of a class does on its n pictures.

    Attributes
    ----------
    units
        (n,) units that the edits are about.
    change
        By arm, (draws, n): change of the class's log odds, summed over these units.
    touched
        By arm, (draws, n): whether the edit moves anything in the picture.
    """

    units: NDArray[np.float64]
    change: dict[str, NDArray[np.float64]]
    touched: dict[str, NDArray[np.bool_]]


def odds_of(runner: Runner, counts: ClassCounts, draws: Draws) -> Odds:
    """Run edits, latents switched off in each, on the pictures of a class, each at its own length.

    Parameters
    ----------
    draws
        By the name of an arm; each draw is an edit of its own.
    """
    n, task = len(counts.images), runner.task
    found = Odds(
        np.zeros(n),
        {arm: np.zeros((len(changes), n)) for arm, changes in draws.items()},
        {arm: np.zeros((len(changes), n), dtype=bool) for arm, changes in draws.items()},
    )

    def watch(outcome: Outcome, batch: Batch) -> None:
        if outcome.arm == "none":
            found.units[batch.rows] = units_by_picture(task, counts, batch)
            return
        found.change[outcome.arm][outcome.draw, batch.rows] = change_by_picture(task, counts, outcome, batch)
        # Rows are those of the patches, picture after picture.
        picture = batch.patches.nonzero()[:, 0][(outcome.change != 0).any(dim=1)]
        found.touched[outcome.arm][outcome.draw, picture.cpu().numpy() + batch.rows.start] = True

    runner.run(counts, draws, (OFF,), (NATURAL,), watch=watch, logits=True)
    return found


def units_by_picture(task: Task, counts: ClassCounts, batch: Batch) -> NDArray[np.float64]:
    """Units of a batch that the edits of a class are about, (b,)."""
    return _by_picture(task.meant(counts, batch.rows, batch.target))


def change_by_picture(task: Task, counts: ClassCounts, outcome: Outcome, batch: Batch) -> NDArray[np.float64]:
    """Change of the class's log odds, summed over these units, (b,); the outcome and the batch hold logits."""
    number = task.numbers[counts.target.class_id]
    change = task.log_odds(outcome.after, number) - task.log_odds(batch.before, number)
    return _by_picture(change * task.meant(counts, batch.rows, batch.target))


def _by_picture(values: Tensor) -> NDArray[np.float64]:
    """Sums over the units of each picture, (b,), of (b,) or (b, n_patches)."""
    values = values.double()
    summed: NDArray[np.float64] = (values.flatten(1).sum(dim=1) if values.ndim > 1 else values).cpu().numpy()
    return summed
