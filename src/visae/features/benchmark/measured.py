"""What a metric of the benchmark found: a value as the package has it, one done right, and an interval of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visae.features.resampling import picture_weights
from visae.intervals import RESAMPLES, interval

Z = 1.959963984540054
"""Standard errors on either side of a 95 % interval."""


# Stands for infinity where numbers are compared.
_LARGE = 1e300
# Weights in double precision at once.
_AT_ONCE = 1 << 22


class Estimate(NamedTuple):
    """A number and its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"))


class NotMeasured(Exception):
    """Why a metric has no value on these pictures; the table says so."""


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes
    ----------
    name
        As visaebench or saev call it.
    package
        Which of the two.
    higher_is_better
        Which way is better.
    value
        By the package's own definition; what the package itself prints.
    corrected
        The same without what is wrong with that definition; equal to `value` where nothing is.
    n, unit
        How many of what the value is a mean or share of.
    note
        What the value is of, or why there is none.
    correction
        What `corrected` does otherwise.
    """

    name: str
    package: str
    higher_is_better: bool
    value: Estimate
    corrected: Estimate
    n: int
    unit: str
    note: str = ""
    correction: str = ""


def by_pictures(measure: Callable[[NDArray[np.float64]], NDArray[np.float64]], n_pictures: int, seed: int) -> Estimate:
    """Measure on all pictures, and on resamples of them for the interval.

    Parameters
    ----------
    measure
        Takes weights (r, n_pictures), how often each picture counts, and gives r numbers.
    n_pictures, seed
        Pictures, and seed of the resamples.
    """
    value = float(measure(np.ones((1, n_pictures)))[0])
    resampled = by_rows(measure, picture_weights(n_pictures, RESAMPLES, seed))
    # Between infinite numbers no quantile can be taken, between large ones it can.
    bounds = interval(np.where(np.isposinf(resampled), _LARGE, resampled))
    return Estimate(value, *(np.inf if bound >= _LARGE / 1e9 else bound for bound in bounds))


def by_rows(
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Measure by weights (r, n_pictures) in double precision, a few rows at a time, (r,)."""
    step = max(1, _AT_ONCE // weights.shape[1])
    starts = range(0, len(weights), step)
    return np.concatenate([measure(weights[start : start + step].astype(np.float64)) for start in starts])


def resampled_weights(n_pictures: int, seed: int) -> NDArray[np.float32]:
    """Weights of all pictures once, then of resamples, (1 + resamples, n_pictures)."""
    return np.vstack([np.ones((1, n_pictures), dtype=np.float32), picture_weights(n_pictures, RESAMPLES, seed)])


def about(value: float, variance: float, lowest: float = -np.inf, highest: float = np.inf) -> Estimate:
    """Normal interval within the range that values have."""
    half = Z * np.sqrt(variance)
    return Estimate(value, float(max(value - half, lowest)), float(min(value + half, highest)))
