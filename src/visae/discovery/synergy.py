"""What two edits do together beyond the sum of what each does alone, and the tests of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visae.experiments.tables import sign_flips
from visae.features.resampling import p_value
from visae.intervals import interval, resampling_weights

_ROUNDING = 1e-5
"""Part of the sizes of what is added up that sums of float32, through a network, are not to be trusted beyond."""


def beyond_sum(together: NDArray[np.float64], alone: NDArray[np.float64]) -> NDArray[np.float64]:
    """What edits do together minus the sum of what each does alone, picture by picture, (n,).

    What is less than float32 rounds is no difference, and 0.

    Parameters
    ----------
    together
        (n,) change with all edits at once.
    alone
        (m, n) change with each.
    """
    difference = together - alone.sum(axis=0)
    size = np.abs(together) + np.abs(alone).sum(axis=0)
    return np.where(np.abs(difference) <= _ROUNDING * size, 0.0, difference)


@dataclass(frozen=True)
class Resampled:
    """Intervals and tests of sums over the same n pictures.

    Attributes
    ----------
    units
        (n,) units of each picture.
    weights, signs
        (resamples, n): how often each picture is drawn, and the signs that its differences are given.
    """

    units: NDArray[np.float64]
    weights: NDArray[np.float64]
    signs: NDArray[np.int8]

    @classmethod
    def of(cls, units: NDArray[np.float64], resamples: int, seed: int) -> Resampled:
        """Draw pictures and signs."""
        n = len(units)
        return cls(units, resampling_weights(n, resamples, seed), sign_flips(n, resamples, seed))

    def mean(self, values: NDArray[np.float64]) -> float:
        """Sum of values (n,) a unit."""
        return float(values.sum() / self.units.sum())

    def measured(self, name: str, values: NDArray[np.float64]) -> dict[str, float]:
        """Mean a unit, and its interval, as `name`, `name_low` and `name_high`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = interval((self.weights @ values) / (self.weights @ self.units))
        return {name: self.mean(values), f"{name}_low": low, f"{name}_high": high}

    def either_way(self, values: NDArray[np.float64]) -> float:
        """Chance of so large a sum of values (n,), above or below 0, if each sign were as likely as the other."""
        # Sums of the same numbers in another order are not equal to the last bit.
        observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()
        return float(p_value(observed, np.abs(self.signs @ values)))

    def above(self, values: NDArray[np.float64], others: NDArray[np.float64]) -> float:
        """Chance that one sum is larger than the other by so much, signs aside, were the two swapped in each picture.

        Parameters
        ----------
        values, others
            (n,) of what is tested, and of what stands for chance.
        """
        middle, half = (values + others).sum() / 2, (values - others) / 2
        observed = abs(middle + half.sum()) - abs(middle - half.sum())
        swapped = self.signs @ half
        rounding = 1e-9 * (np.abs(values) + np.abs(others)).sum()
        return float(p_value(observed - rounding, np.abs(middle + swapped) - np.abs(middle - swapped)))

    def one_way(self, values: NDArray[np.float64], direction: float) -> float:
        """Chance of so large a sum in a direction that was chosen on other pictures."""
        turned = np.sign(direction) * values
        observed = turned.sum() - 1e-9 * np.abs(turned).sum()
        return float(p_value(observed, self.signs @ turned))
