"""Accuracy by group, in the worst group and over groups, with intervals from resampled pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from visae.features.resampling import wilson_interval
from visae.groups.pictures import Grouped
from visae.intervals import interval, resampling_weights

WORST, MEAN, PICTURES = "worst", "mean", "pictures"
"""Over groups: the accuracy of the one that has the lowest, the mean, and that of all pictures."""


class Accuracies:
    """Measures answers on pictures whose groups are known.

    Pictures are resampled within their group, once for all measures, so that differences keep their pairing.

    Parameters
    ----------
    pictures
        Every group has some.
    """

    def __init__(self, pictures: Grouped, resamples: int, seed: int) -> None:
        self.pictures = pictures
        self._own = [np.flatnonzero(pictures.group == number) for number in range(len(pictures.names))]
        self._weights = [
            resampling_weights(len(own), resamples, seed + number) / len(own) for number, own in enumerate(self._own)
        ]

    def by_group(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracy of each group, (n_groups,), of what is right of each picture, (n,)."""
        return np.array([right[own].mean() for own in self._own])

    def measured(self, right: NDArray[np.float64], before: NDArray[np.float64]) -> list[dict[str, Any]]:
        """One row a group and one for each of WORST, MEAN and PICTURES.

        Parameters
        ----------
        right, before
            (n,) whether each picture is right, and whether it was before.

        Returns
        -------
        list
            `over` (`group`, or one of these), `group`, `n_images`, `accuracy` and `change`, with `_low` and `_high`.
            Intervals of a group's accuracy are Wilson's, all others are from resampled pictures. The group of WORST is
            that with the lowest accuracy; in each resample it is the one that has it there.
        """
        of_groups, earlier = self.by_group(right), self.by_group(before)
        sizes = self.pictures.sizes
        low, high = wilson_interval(of_groups * sizes, sizes)
        resampled, earlier_resampled = self._resampled(right), self._resampled(before)
        rows: list[dict[str, Any]] = []
        for number, name in enumerate(self.pictures.names):
            bounds = {"accuracy_low": float(low[number]), "accuracy_high": float(high[number])}
            about = {"over": "group", "group": name, "n_images": int(sizes[number])}
            change = _change(of_groups[number], earlier[number], resampled[:, number], earlier_resampled[:, number])
            rows.append({**about, "accuracy": float(of_groups[number]), **bounds, **change})
        share = sizes / sizes.sum()
        for over in (WORST, MEAN, PICTURES):
            now, then = (_over(over, values, share) for values in (of_groups[None], earlier[None]))
            spread, spread_then = (_over(over, values, share) for values in (resampled, earlier_resampled))
            bounds = dict(zip(("accuracy_low", "accuracy_high"), interval(spread), strict=True))
            worst = self.pictures.names[int(of_groups.argmin())] if over == WORST else None
            about = {"over": over, "group": worst, "n_images": int(sizes.sum())}
            change = _change(now[0], then[0], spread, spread_then)
            rows.append({**about, "accuracy": float(now[0]), **bounds, **change})
        return rows

    def worst(self, right: NDArray[np.float64]) -> float:
        """Accuracy of the group that has the lowest."""
        return float(self.by_group(right).min())

    def difference(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
        """How much higher the worst group's accuracy is, with `_low` and `_high`."""
        resampled = self._resampled(one).min(axis=1) - self._resampled(other).min(axis=1)
        low, high = interval(resampled)
        return {"difference": self.worst(one) - self.worst(other), "difference_low": low, "difference_high": high}

    def _resampled(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracy of each group in each resample, (resamples, n_groups)."""
        return np.stack([weights @ right[own] for weights, own in zip(self._weights, self._own, strict=True)], axis=1)


def _over(over: str, values: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """One number, (r,), of accuracies of groups (r, n_groups)."""
    if over == WORST:
        return values.min(axis=1)
    return values.mean(axis=1) if over == MEAN else values @ share


def _change(
    now: float, before: float, resampled: NDArray[np.float64], before_resampled: NDArray[np.float64]
) -> dict[str, float]:
    low, high = interval(resampled - before_resampled)
    return {"change": float(now - before), "change_low": low, "change_high": high}
