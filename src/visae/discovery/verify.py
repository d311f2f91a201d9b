"""Pairs of a latent and a class edited on pictures that no estimate has seen, beside random latents as long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visae.arms.arms import Outcome
from visae.arms.targets import Activity
from visae.config.interventions import AUTOMATIC, MATCHED, NATURAL
from visae.config.settings import AtlasSettings
from visae.discovery.odds import OFF, change_by_picture, units_by_picture
from visae.discovery.pairs import Pair
from visae.experiments.doses import response
from visae.experiments.runner import Batch, Runner
from visae.experiments.tables import paired_p, sign_flips
from visae.intervals import interval, resampling_weights
from visae.tasks.counts import SUPPRESS, ClassCounts, Target, with_intervals
from visae.tasks.task import Task

CONTROL = "random_latent"


@dataclass
class Effect:
    """What an edit does to the log odds of a class, picture by picture.

    Attributes
    ----------
    counts
        What else was counted, by arm, size and dose.
    odds
        (n,) change of the log odds, summed over the units of a picture, means over draws: of the latent switched off,
        and of random latents whose change is as long.
    units
        (n,) units of each picture.
    """

    counts: ClassCounts
    odds: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    units: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def mean(self, arm: str) -> float:
        """Change a unit."""
        return float(self.odds[arm].sum() / self.units.sum())

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """Of the latent's own change a unit, from resampled pictures."""
        weights = resampling_weights(len(self.units), resamples, seed)
        with np.errstate(divide="ignore", invalid="ignore"):
            return interval((weights @ self.odds[AUTOMATIC]) / (weights @ self.units))

    def p(self, expected: float, flips: int, seed: int) -> float:
        """Chance that the latent does no more than random ones in the direction that is expected of it."""
        added = np.sign(expected) * (self.odds[AUTOMATIC] - self.odds[CONTROL]) / self.units.sum()
        return paired_p(added, sign_flips(len(added), flips, seed))


@dataclass
class Verifier:
    """Measures pairs; the runner's task has looked at the measured split.

    Attributes
    ----------
    claimed
        Pairs that some ranking proposes: controls are drawn among the others.
    """

    runner: Runner
    activity: Activity
    settings: AtlasSettings
    claimed: frozenset[Pair]
    seed: int

    def measured(self, pair: Pair, estimate: float, doses: Sequence[float], again: bool = False) -> Effect | None:
        """Edit a latent on pictures of a class; None where there is nothing to edit.

        Parameters
        ----------
        doses
            Beside OFF, for the share of target units that turn.
        again
            On the other half of the pictures.
        """
        counts = self._pictures(pair, estimate, again)
        if not len(counts.images) or not self.runner.can_be_edited(counts):
            return None
        found = Effect(counts, units=np.zeros(len(counts.images)))
        task = self.runner.task

        def watch(outcome: Outcome, batch: Batch) -> None:
            if outcome.arm == "none":
                found.units[batch.rows] = units_by_picture(task, counts, batch)
            kept = NATURAL if outcome.arm == AUTOMATIC else MATCHED
            if outcome.arm not in (AUTOMATIC, CONTROL) or outcome.size != kept or OFF not in outcome.scales:
                return
            total = found.odds.setdefault(outcome.arm, np.zeros(len(counts.images)))
            total[batch.rows] += change_by_picture(task, counts, outcome, batch) / outcome.draws

        draws = {CONTROL: [self.activity.edit((latent,)) for latent in self._others(pair)]}
        draws[AUTOMATIC] = [self.activity.edit((pair[1],))]
        self.runner.run(counts, draws, (OFF,), (MATCHED,), watch=watch, logits=True)
        if doses:
            self.runner.run(counts, {AUTOMATIC: draws[AUTOMATIC]}, tuple(doses), ())
        return found

    def row(self, effect: Effect, estimate: float) -> dict[str, Any]:
        """Columns of a measured pair."""
        task, counts = self.runner.task, effect.counts
        low, high = effect.interval(self.settings.bootstrap, self.seed)
        row: dict[str, Any] = {
            "effect": effect.mean(AUTOMATIC),
            "effect_low": low,
            "effect_high": high,
            "control": effect.mean(CONTROL),
            "p": effect.p(estimate, self.settings.bootstrap, self.seed),
            "n_units": int(effect.units.sum()),
            "n_images": int((effect.units > 0).sum()),
        }
        doses = sorted({scale for arm, _, scale in counts.edits if arm == AUTOMATIC}, key=abs)
        shares = [task.shares(SUPPRESS, task.sums(counts, (AUTOMATIC, NATURAL, dose))) for dose in doses]
        weights = resampling_weights(len(task.measured), self.settings.bootstrap, self.seed)
        off = (AUTOMATIC, NATURAL, OFF)
        row |= with_intervals(shares[0], task.shares(SUPPRESS, task.sums(counts, off, weights)))
        if len(doses) > 1:
            target, other = (
                np.array([float(share[name]) for share in shares]) for name in ("target_change", "other_change")
            )
            found = response(np.array(doses), target, other)
            row |= {name: found[name] for name in ("monotonicity", "half_dose", "other_change_at_half")}
        return row

    def _pictures(self, pair: Pair, estimate: float, again: bool) -> ClassCounts:
        """One half of the drawn pictures of a class."""
        target = Target(pair[0], self.runner.task.names[pair[0]], (pair[1],), estimate)
        return drawn_half(self.runner.task, target, self.settings.images, self.seed, again)

    def _others(self, pair: Pair) -> list[int]:
        """Random latents to beat."""
        pool = [latent for latent in sorted(self.activity.count) if (pair[0], latent) not in self.claimed]
        pool = pool or [latent for latent in sorted(self.activity.count) if latent != pair[1]]
        generator = np.random.default_rng([self.seed, *pair, 23])
        return generator.choice(pool, size=min(self.settings.random_draws, len(pool)), replace=False).tolist()


def drawn_half(task: Task, target: Target, n_pictures: int, seed: int, again: bool = False) -> ClassCounts:
    """Every second of twice as many drawn pictures of a class, and of others: on which its pairs are verified.

    Which pictures they are depends on the class, the number and the seed, not on the target's latents.

    Parameters
    ----------
    again
        The other ones, on which what was verified has to show its effect again.
    """
    counts = task.pictures(target, SUPPRESS, 2 * n_pictures, seed)
    halves = [
        np.random.default_rng([seed, target.class_id, 22]).permutation(np.flatnonzero(chosen))[int(again) :: 2]
        for chosen in (counts.n_target > 0, counts.n_target == 0)
    ]
    return counts.only(np.sort(np.concatenate(halves)))
