"""Percentile intervals by resampling pictures."""

from __future__ import annotations

import numpy as np

COVERAGE = 0.95
"""Probability with which an interval is meant to hold what it estimates."""

RESAMPLES = 1000
"""Resamples behind each interval."""


def resampling_weights(n_images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each picture is drawn in each resample, float64 (resamples, n_images).

    One matrix serves all arms and classes of an experiment: they are then resampled together, so that
    differences and means over classes keep their pairing.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_images, np.full(n_images, 1 / n_images), size=resamples).astype(np.float64)


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
