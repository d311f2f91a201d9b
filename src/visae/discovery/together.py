"""Pairs of latents of an atlas, switched off alone and together on pictures of a class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visae.arms.changes import AsLong, Together
from visae.arms.targets import Activity
from visae.config.interactions import InteractionSettings
from visae.discovery.odds import Odds, odds_of
from visae.discovery.synergy import Resampled, beyond_sum
from visae.discovery.verify import drawn_half
from visae.experiments.runner import Runner
from visae.tasks.counts import ClassCounts, Target

TESTABLE = 6
"""Pictures in which both latents of a pair have to move something: of fewer, no test by signs can be sure at .05."""


@dataclass(frozen=True)
class Member:
    """A latent, and the class to which it does most."""

    class_id: int
    latent: int


@dataclass(frozen=True)
class Pairs:
    """Measures pairs; the runner's task has looked at the measured split.

    Attributes
    ----------
    halves
        Pictures of a class in a half of the measured split, at most, and the seed that halves it: those of the atlas.
    """

    runner: Runner
    activity: Activity
    settings: InteractionSettings
    halves: tuple[int, int]
    seed: int

    def of_class(
        self, class_id: int, members: Sequence[Member], verified: Collection[int]
    ) -> tuple[list[dict[str, Any]], str]:
        """Rows of the pairs of a class's own latents and all others, on its pictures; or none, and why.

        Parameters
        ----------
        verified
            Latents that do something to the class, of which no control is drawn.
        """
        latents = [member.latent for member in members]
        classes = {member.latent: member.class_id for member in members}
        own = [latent for latent in latents if classes[latent] == class_id]
        # Of two latents of the class the one that comes first is the first of the pair.
        asked = [(a, b) for a in own for b in latents if b not in own or latents.index(a) < latents.index(b)]
        counts = own_pictures(self.runner, class_id, latents, self.halves, again=True)
        if not len(counts.images) or not self.runner.can_be_edited(counts):
            return [], "no picture of the second half of the measured split has anything of it to edit"
        controls = self._controls(class_id, latents, verified)
        off = {latent: self.activity.edit((latent,)) for latent in latents}
        as_long = {latent: AsLong(self.activity.edit((controls[latent],)), off[latent]) for latent in latents}
        alone = odds_of(self.runner, counts, {"latent": list(off.values()), "random": list(as_long.values())})
        place = {latent: number for number, latent in enumerate(latents)}
        moved = alone.touched["latent"]
        both = {(a, b): int((moved[place[a]] & moved[place[b]]).sum()) for a, b in asked}
        tested = [pair for pair in asked if both[pair] >= TESTABLE]
        together = odds_of(
            self.runner,
            counts,
            {
                "latent": [self.activity.edit(pair) for pair in tested],
                "random": [Together(tuple(as_long[latent] for latent in pair)) for pair in tested],
            },
        )
        resampled = Resampled.of(alone.units, self.settings.bootstrap, self.seed)
        measured = {pair: (number, [place[latent] for latent in pair]) for number, pair in enumerate(tested)}
        rows = []
        for a, b in asked:
            row = {"class_id": class_id, "latent": a, "other_class_id": classes[b], "other": b}
            row |= {"n_together": both[a, b], "n_units": int(alone.units.sum())}
            row["n_images"] = int((alone.units > 0).sum())
            rows.append(row | (_measured(resampled, alone, together, *measured[a, b]) if (a, b) in measured else {}))
        return rows, ""

    def _controls(self, class_id: int, latents: Sequence[int], verified: Collection[int]) -> dict[int, int]:
        """A random latent for each one."""
        pool = sorted(set(self.activity.count) - set(latents) - set(verified))
        pool = pool or sorted(set(self.activity.count) - set(latents)) or sorted(self.activity.count)
        generator = np.random.default_rng([self.seed, class_id, 24])
        drawn = generator.choice(pool, size=len(latents), replace=len(pool) < len(latents))
        return dict(zip(latents, drawn.tolist(), strict=True))


def own_pictures(
    runner: Runner, class_id: int, latents: Sequence[int], halves: tuple[int, int], *, again: bool
) -> ClassCounts:
    """Pictures of a class of one half of the measured split, without those of others."""
    target = Target(class_id, runner.task.names[class_id], tuple(latents), 0.0)
    counts = drawn_half(runner.task, target, *halves, again)
    return counts.only(np.flatnonzero(counts.n_target > 0))


def _measured(
    resampled: Resampled, alone: Odds, together: Odds, number: int, places: Sequence[int]
) -> dict[str, float]:
    """Columns of a pair from its number among those edited together and its latents' places."""
    first, other = (alone.change["latent"][place] for place in places)
    row = resampled.measured("effect", first) | resampled.measured("effect_other", other)
    row |= resampled.measured("together", together.change["latent"][number])
    synergy, control = (_synergy(alone, together, arm, number, places) for arm in ("latent", "random"))
    row |= resampled.measured("synergy", synergy)
    row |= {"p": resampled.either_way(synergy), "control": resampled.mean(control)}
    return row | {"p_control": resampled.either_way(control), "p_above": resampled.above(synergy, control)}


def _synergy(alone: Odds, together: Odds, arm: str, number: int, places: Sequence[int]) -> NDArray[np.float64]:
    return beyond_sum(together.change[arm][number], alone.change[arm][list(places)])
