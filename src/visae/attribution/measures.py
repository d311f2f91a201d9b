"""Numbers of maps: how far two of them agree, how much of one lies in a place, and how concentrated it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visae.intervals import interval, ratios, resampling_weights

AGREEMENTS = ("attribution", "absolute", "shuffled", "other_picture", "activation", "absolute_activation")
"""Maps whose order of windows is compared with that of occlusion; `absolute` with sizes, whatever their signs."""


def window_sums(patches: NDArray[np.floating], windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums of patches (n_patches,) in each window."""
    return np.bincount(windows, weights=patches).astype(np.float64)


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of two maps; NaN where one is constant or has no values."""
    from scipy.stats import rankdata

    if np.isnan(one).any() or np.isnan(other).any():
        return float("nan")
    left, right = (ranks - ranks.mean() for ranks in (rankdata(one), rankdata(other)))
    below = np.sqrt((left @ left) * (right @ right))
    return float(left @ right / below) if below > 0 else float("nan")


def shuffled_correlation(
    one: NDArray[np.floating], other: NDArray[np.floating], shuffles: int, random: np.random.Generator
) -> float:
    """Mean rank correlation of a map with another whose places are shuffled."""
    return float(np.mean([rank_correlation(random.permutation(one), other) for _ in range(shuffles)]))


def share_inside(values: NDArray[np.floating], covered: NDArray[np.floating]) -> float:
    """Share of the absolute mass of a map (n_patches,) in a place, of which each patch is covered by so much.

    NaN where there is no mass. A map that knows nothing has the mean of `covered`, the place's share of the picture.
    """
    mass = np.abs(values, dtype=np.float64)
    total = mass.sum()
    return float(mass @ covered / total) if total > 0 else float("nan")


def half_of_mass(values: NDArray[np.floating]) -> float:
    """Smallest share of the patches that has half of the absolute mass of a map; NaN where there is no mass."""
    mass = np.sort(np.abs(values, dtype=np.float64))[::-1]
    if not mass.sum() > 0:
        return float("nan")
    return float((np.searchsorted(mass.cumsum(), mass.sum() / 2) + 1) / len(mass))


def mean_over_pictures(
    values: NDArray[np.floating], pictures: NDArray[np.integer], resamples: int, seed: int
) -> dict[str, float | None]:
    """Mean of rows with the 95 % interval of resampled pictures, as `value`, `low` and `high`; None of nothing.

    Parameters
    ----------
    values
        (n,), NaN where there is none.
    pictures
        (n,) which picture, or pair of pictures, each row is of.
    """
    known = ~np.isnan(values)
    if not known.any():
        return {"value": None, "low": None, "high": None}
    distinct, which = np.unique(pictures[known], return_inverse=True)
    sums, counts = np.bincount(which, weights=values[known]), np.bincount(which).astype(np.float64)
    spread = ratios(sums, counts, resampling_weights(len(distinct), resamples, seed))
    low, high = interval(spread)
    return {"value": float(sums.sum() / counts.sum()), "low": low, "high": high}
