"""Confidence intervals by resampling pictures, and nulls by permuting labels over them.

Patches of a picture depend on each other, so the picture is what is drawn, and what labels are moved between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Small enough for a processor's cache.
_CHUNK_VALUES = 100_000


def picture_weights(n_pictures: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each picture is drawn in each resample, (resamples, n_pictures)."""
    random = np.random.default_rng([seed, 1])
    weights = np.empty((resamples, n_pictures), dtype=np.float32)
    for row in weights:
        row[:] = np.bincount(random.integers(n_pictures, size=n_pictures), minlength=n_pictures)
    return weights


def permutations(n_pictures: int, n_permutations: int, seed: int) -> NDArray[np.int32]:
    """Orders of pictures, (n_permutations, n_pictures): picture i is given the labels of picture order[i]."""
    random = np.random.default_rng([seed, 2])
    return np.stack([random.permutation(n_pictures).astype(np.int32) for _ in range(n_permutations)])


def wilson_interval(hits: NDArray, trials: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's interval of shares hits / trials; NaN without trials."""
    z = 1.959963984540054
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / trials
        middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
        half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return middle - half, middle + half


def p_value(observed: NDArray | float, null: NDArray, ties: np.random.Generator | None = None) -> NDArray[np.float64]:
    """Share of null values, along the first axis, that are as large as what was observed, the observed one included.

    Counting the observed one makes the test exact: on data without an effect, p is below 0.05 in at most 5 % of cases.
    NaN where the observed value is. `ties` is explained in `tail_share`.
    """
    p = tail_share((null > observed).sum(axis=0), 1 + (null == observed).sum(axis=0), 1 + len(null), ties)
    return np.where(np.isnan(observed), np.nan, p)


def tail_share(
    larger: NDArray, equal: NDArray, total: NDArray | float, ties: np.random.Generator | None = None
) -> NDArray[np.float64]:
    """Return the p-value of an observed score from how many of `total` are larger than it and equal to it.

    Parameters
    ----------
    larger, equal
        Numbers or probabilities; the observed score is one of the equal ones.
    total
        What they are shares of.
    ties
        Left out, all equal ones count against what was observed, so that p-values of scores with few values are larger
        than need be. With a generator each test counts a random part of them: then p is drawn evenly from 0 to 1 where
        there is nothing to find, whatever the score: bench/features/nulls.py so tells a sound null from another.
    """
    part = 1.0 if ties is None else ties.random(np.shape(equal))
    return np.asarray((larger + part * equal) / total, dtype=np.float64)


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smallest false discovery rate at which each test of a family counts as found; NaN is no member of the family.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.04, 0.04]
    """
    adjusted = np.full(len(p), np.nan)
    members = np.flatnonzero(~np.isnan(p))
    order = members[np.argsort(p[members], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def resampled_scores(
    picture: NDArray[np.integer],
    is_positive: NDArray[np.bool_],
    above: NDArray[np.bool_],
    runs: tuple[NDArray[np.int64], NDArray[np.int64]],
    positives: NDArray[np.integer],
    units: NDArray[np.integer],
    weights: NDArray[np.float32],
) -> NDArray[np.float64]:
    """F1, average precision and AUC of one latent for one class in every resample, float64 (3, resamples).

    Parameters
    ----------
    picture, is_positive, above
        (n,) of the latent's codes, the largest value first: their picture, whether the unit is of the class, and
        whether the value is above the threshold.
    runs
        First and last position, (n,) each, of the run of equal values that a code is in.
    positives, units
        (n_pictures,) units of the class, and of any class.
    weights
        (resamples, n_pictures).
    """
    scores = np.empty((3, len(weights)))
    first, last = runs
    chunk = max(1, _CHUNK_VALUES // max(1, len(picture)))
    for start in range(0, len(weights), chunk):
        part = weights[start : start + chunk].astype(np.float64)
        n_positive, n_units = part @ positives, part @ units
        n_negative = n_units - n_positive
        drawn = part[:, picture]
        drawn_positive = drawn * is_positive
        # One more column in front: nothing yet.
        hits, ranks = (np.pad(np.cumsum(times, axis=1), ((0, 0), (1, 0))) for times in (drawn_positive, drawn))
        hits_at, ranks_at = hits[:, last + 1], ranks[:, last + 1]
        active_hits, active_misses = hits[:, -1], ranks[:, -1] - hits[:, -1]
        # A unit of the class loses to those of others with larger values, and half to those with the same.
        lost = (ranks[:, first] - hits[:, first] + ranks_at - hits_at) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            scores[0, start : start + chunk] = (
                2 * (drawn_positive @ above) / (drawn @ above.astype(np.float64) + n_positive)
            )
            precision = np.where(ranks_at > 0, hits_at / ranks_at, 0)
            steps = (drawn_positive * precision).sum(axis=1)
            scores[1, start : start + chunk] = steps / n_positive + (n_positive - active_hits) / n_units
            silent = (n_positive - active_hits) * (n_negative + active_misses) / 2
            scores[2, start : start + chunk] = 1 - ((drawn_positive * lost).sum(axis=1) + silent) / (
                n_positive * n_negative
            )
        scores[:, start : start + chunk][:, n_positive == 0] = np.nan
    return scores
