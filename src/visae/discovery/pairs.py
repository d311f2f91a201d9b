"""Pairs of a latent and a class in the order in which rankings propose them as cause and effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]
"""Class id and latent."""

BY_ESTIMATE, BY_LABELS, AT_RANDOM = "estimate", "labels", "random"
RANKINGS = (BY_ESTIMATE, BY_LABELS, AT_RANDOM)


@dataclass(frozen=True)
class Rankings:
    """Pairs by ranking, the first first.

    Attributes
    ----------
    estimates
        Estimated effect of every pair whose latent is active.
    first
        As many pairs of each of RANKINGS as are verified.
    """

    estimates: Mapping[Pair, float]
    first: Mapping[str, Sequence[Pair]]

    @property
    def pairs(self) -> list[Pair]:
        """All pairs that are verified, by class."""
        return sorted({pair for ranked in self.first.values() for pair in ranked})


def ranked(
    effects: NDArray[np.float64],
    class_ids: Sequence[int],
    active: Sequence[int],
    scored: Sequence[tuple[int, int, float]],
    most: int,
    seed: int,
) -> Rankings:
    """Rank pairs by the size of the estimate, by labels and at random.

    Parameters
    ----------
    effects
        (n_classes, width) as `estimated_effects` gives them.
    active
        Latents that can be edited.
    scored
        Class id, latent and score by labels, the best first.
    most
        Pairs of each ranking.
    """
    known = [number for number in range(len(class_ids)) if not np.isnan(effects[number]).any()]
    estimates = {(class_ids[number], latent): float(effects[number, latent]) for number in known for latent in active}
    by_size = sorted(estimates, key=lambda pair: (-abs(estimates[pair]), pair))
    order = np.random.default_rng([seed, 21]).permutation(len(estimates))[:most]
    everything = list(estimates)
    first = {
        # An estimate of exactly nothing proposes nothing.
        BY_ESTIMATE: [pair for pair in by_size[:most] if estimates[pair]],
        BY_LABELS: [(class_id, latent) for class_id, latent, _ in scored if (class_id, latent) in estimates][:most],
        AT_RANDOM: [everything[place] for place in order.tolist()],
    }
    return Rankings(estimates, first)
