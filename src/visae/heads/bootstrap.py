"""Confidence intervals by resampling pictures, because patches of one picture are not independent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from visae.intervals import RESAMPLES, interval

# Weights of resamples that are in memory at once.
_MOST_WEIGHTS = 1 << 23


class Estimate(NamedTuple):
    """A measure and its interval, each of the measure's shape; NaN where it is undefined."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def named(self, name: str) -> dict[str, float | None]:
        """`name`, `name_low` and `name_high` of a single number, None where it is undefined, as JSON wants it."""
        found = {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}
        return {key: None if np.isnan(value) else float(value) for key, value in found.items()}


def estimates(
    measure: Callable[[np.ndarray], dict[str, np.ndarray]], n_images: int, seed: int, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Measures with their intervals, all from the same resamples, so that differences keep their pairing.

    Parameters
    ----------
    measure
        Takes weights (r, n_images), how often each picture counts, and gives arrays (r, ...) by name.
    """
    generator = np.random.default_rng(seed)
    even = np.full(n_images, 1 / n_images)
    parts = []
    at_once = max(1, _MOST_WEIGHTS // n_images)
    for first in range(0, resamples, at_once):
        weights = generator.multinomial(n_images, even, size=min(at_once, resamples - first))
        parts.append(measure(weights.astype(np.float64)))
    found = {}
    for name, value in measure(np.ones((1, n_images))).items():
        resampled = np.concatenate([part[name] for part in parts])
        bounds = [interval(column) for column in resampled.reshape(resamples, -1).T]
        low, high = np.array(bounds).T.reshape(2, *value[0].shape)
        found[name] = Estimate(value[0], low, high)
    return found


def grouped_sums(weights: np.ndarray, values: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Weighted sums of values over the pictures of each group, (r, n_groups).

    Parameters
    ----------
    weights
        (r, n_images).
    values, groups
        (n_images,) each; a group is a number in 0..n_groups-1.
    """
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    sums = np.zeros((len(weights), n_groups))
    sums[:, present] = np.add.reduceat((weights * values)[:, order], starts, axis=1)
    return sums


def grouped_means(weights: np.ndarray, values: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Weighted means of values over each group, as `grouped_sums`; NaN for a group without pictures."""
    sums, counts = (grouped_sums(weights, part, groups, n_groups) for part in (values, np.ones(len(values))))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(counts > 0, sums / counts, np.nan)


def class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis (classes), leaving out classes that are undefined; NaN where all are."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(defined.any(axis=-1), total / defined.sum(axis=-1), np.nan)
