"""Confidence intervals by resampling pictures, because patches of one picture are not independent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

COVERAGE = 0.95
RESAMPLES = 1000
# Weights of resamples that are in memory at once.
_MOST_WEIGHTS = 1 << 23


def resampling_weights(n_images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each picture is drawn in each resample, float64 (resamples, n_images).

    One matrix serves all arms and classes of an experiment: they are then resampled together, so that
    differences and means over classes keep their pairing.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_images, np.full(n_images, 1 / n_images), size=resamples).astype(np.float64)


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


def ratios(numerators: np.ndarray, denominators: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum of numerators over sum of denominators, NaN where the latter is 0.

    Parameters
    ----------
    numerators, denominators
        (n_images,) or (n_images, k) per-picture counts or sums.
    weights
        (resamples, n_images) of `resampling_weights`; None counts each picture once.

    Returns
    -------
    ndarray
        (resamples,) or (resamples, k); without weights the first axis is left out.
    """
    if weights is None:
        above, below = numerators.sum(axis=0), denominators.sum(axis=0)
    else:
        above, below = weights @ numerators, weights @ denominators
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def interval(resampled: np.ndarray) -> tuple[float, float]:
    """Percentile interval of a statistic's resampled values (resamples,); undefined resamples are left out."""
    defined = resampled[~np.isnan(resampled)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis (classes), leaving out classes that are undefined; NaN where all are."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(defined.any(axis=-1), total / defined.sum(axis=-1), np.nan)
