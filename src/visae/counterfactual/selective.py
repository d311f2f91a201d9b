"""Which latents change with one cause and hardly with any other: found on some scenes, tested again on others."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from visae.counterfactual.changes import Changes
from visae.errors import DataError
from visae.experiments.tables import ALPHA
from visae.features.resampling import benjamini_hochberg

# Latents whose resampled values are held at once.
_CHUNK = 128


@dataclass(frozen=True)
class Responses:
    """Changes of latents in units of their own spread, beside the network's in units of its own.

    A latent's response to a cause is its mean change over the network's mean change: at 1 it moves with the cause as
    far as the network does, measured by how far scenes differ from each other. So a cause that changes more pixels
    does not win by that.

    Attributes
    ----------
    latents
        (n_scenes, n_causes, width) change of each pair; NaN where a scene has no picture of a cause.
    network
        (n_scenes, n_causes) the same of the network.
    """

    latents: NDArray[np.float64]
    network: NDArray[np.float64]

    @classmethod
    def of(cls, changes: Changes, spread: NDArray[np.float64], network_spread: float, n_causes: int) -> Responses:
        """Lay out the changes of a split by scene and cause, in units of spreads that split train has."""
        shape = int(changes.scene.max(initial=-1)) + 1, n_causes
        latents = np.full((*shape, changes.whole.shape[1]), np.nan)
        network = np.full(shape, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            latents[changes.scene, changes.cause] = np.where(spread > 0, changes.whole / spread, np.nan)
        network[changes.scene, changes.cause] = changes.network[:, 0] / network_spread
        return cls(latents, network)

    def without_change(self) -> NDArray[np.bool_]:
        """Causes, (n_causes,), with which the network does not change at all, or of which there is no pair."""
        return np.asarray(~(np.nansum(self.network, axis=0) > 0))

    def relative(self, latents: NDArray[np.integer]) -> NDArray[np.float64]:
        """Change of some latents in each pair over the network's mean change with its cause, as `latents`."""
        return np.asarray(self.latents[:, :, latents] / np.nanmean(self.network, axis=0)[None, :, None])

    def means(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Response of each latent to each cause, (n_causes, width), or (resamples, n_causes, width) with weights."""
        known = ~np.isnan(self.network)
        one = np.ones((1, len(known))) if weights is None else weights
        network = np.einsum("rs,sc->rc", one, np.where(known, self.network, 0))
        found = np.stack(
            [one @ np.where(known[:, cause, None], self.latents[:, cause], 0) for cause in range(known.shape[1])],
            axis=1,
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            found = found / network[:, :, None]
        return np.asarray(found[0] if weights is None else found)

    def only(self, latents: NDArray[np.integer]) -> Responses:
        """The same of some latents."""
        return Responses(self.latents[:, :, latents], self.network)


@dataclass(frozen=True)
class Verdicts:
    """What the tests say of the latents that take part.

    Attributes
    ----------
    active
        (n,) latents that take part.
    first, second
        (n,) number of the cause that each responds to most, and next most, on the split that it is found on.
    p
        (n,) of the test that it responds more to the first than to every other cause, on that split.
    found
        (n,) bool: chosen on that split.
    p_again, q
        (n,) of the same test on the other split, and corrected over what was chosen; NaN where it was not.
    again
        (n,) bool: selective.
    """

    active: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    p: NDArray[np.float64]
    found: NDArray[np.bool_]
    p_again: NDArray[np.float64]
    q: NDArray[np.float64]
    again: NDArray[np.bool_]

    @property
    def largest_p(self) -> float:
        """Largest p-value that counts on the other split; that of one test of all that were chosen where none does."""
        return float(self.p_again[self.again].max()) if self.again.any() else ALPHA / max(int(self.found.sum()), 1)


def verdicts(
    fit: Responses, measured: Responses, active: NDArray[np.int64], *, ratio: float, permutations: int, seed: int
) -> Verdicts:
    """Find selective latents on one split, and test them again on the other.

    On the first split the cause is chosen that a latent responds to most, and latents are chosen that respond `ratio`
    times as much to it as to any other, and more than to every other one by a test (p at most 0.05). On the other split
    the same test is made of what was chosen: a latent is selective where its false discovery rate is at most 5 %.
    Nothing was chosen on that split, so that no choice makes its p-values too small.

    Each comparison swaps the two causes at random within scenes, or, where not all scenes have both, over all pairs;
    the largest p-value of a latent's comparisons is that of its test: each has to be rejected, so that none needs a
    correction.

    Parameters
    ----------
    fit, measured
        Of the two splits.
    active
        Latents that take part.
    ratio
        See above; at least 1.

    Raises
    ------
    DataError
        If there is one cause alone, or one with which nothing changes.
    """
    if fit.network.shape[1] < 2:
        raise DataError(
            "counterfactuals: one cause alone: selectivity compares causes; give pairs of two causes or more"
        )
    order = np.argsort(-fit.means()[:, active], axis=0, kind="stable")
    first, second = order[0], order[1]
    p = _largest_p(fit, active, first, permutations, seed)
    found = (p <= ALPHA) & _times(fit.means()[:, active], first, ratio)
    p_again = np.full(len(active), np.nan)
    p_again[found] = _largest_p(measured, active[found], first[found], permutations, seed + 1)
    q = benjamini_hochberg(p_again)
    again = np.nan_to_num(q, nan=1.0) <= ALPHA
    return Verdicts(active, first, second, p, found, p_again, q, again)


def _times(means: NDArray[np.float64], first: NDArray[np.int64], ratio: float) -> NDArray[np.bool_]:
    """Whether the response to the first cause is `ratio` times that to any other: (..., n) of (..., n_causes, n)."""
    own, others = own_and_others(means, first)
    return np.asarray(own >= ratio * others)


def own_and_others(
    means: NDArray[np.float64], first: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Responses (..., n) to each latent's first cause, and the largest to any other, of means (..., n_causes, n)."""
    place = np.broadcast_to(first, (*means.shape[:-2], 1, means.shape[-1]))
    own = np.take_along_axis(means, place, axis=-2)
    others = means.copy()
    np.put_along_axis(others, place, -np.inf, axis=-2)
    return own[..., 0, :], others.max(axis=-2)


def _largest_p(
    responses: Responses, latents: NDArray[np.int64], first: NDArray[np.int64], permutations: int, seed: int
) -> NDArray[np.float64]:
    """Largest p-value over all comparisons of each latent's first cause with another, (n,)."""
    worst = np.zeros(len(latents))
    n_causes = responses.network.shape[1]
    for own in np.unique(first).tolist():
        members = np.flatnonzero(first == own)
        values = responses.relative(latents[members])
        for other in range(n_causes):
            if other != own:
                # All latents share the swaps of a comparison.
                swaps = np.random.default_rng([seed, own, other, 31])
                found = _swapped_p(values[:, own], values[:, other], permutations, swaps)
                worst[members] = np.maximum(worst[members], found)
    return worst


def _swapped_p(
    own: NDArray[np.float64], other: NDArray[np.float64], permutations: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Chance of so large a difference of means, (n,), of values (n_scenes, n), were the causes swapped at random."""
    has = ~np.isnan(own[:, 0]), ~np.isnan(other[:, 0])
    if (has[0] == has[1]).all():
        both = np.flatnonzero(has[0])
        rows, contrast = own[both] - other[both], np.full(len(both), 1 / len(both))
        drawn = contrast * (2 * generator.integers(2, size=(permutations, len(both))) - 1)
    else:
        rows = np.concatenate([own[has[0]], other[has[1]]])
        contrast = np.concatenate([np.full(has[0].sum(), 1 / has[0].sum()), np.full(has[1].sum(), -1 / has[1].sum())])
        drawn = generator.permuted(np.tile(contrast, (permutations, 1)), axis=1)
    # Sums of the same numbers in another order are not equal to the last bit.
    as_large = (drawn @ rows >= contrast @ rows - 1e-12).sum(axis=0)
    return np.asarray((1 + as_large) / (1 + permutations))


def resampled_share(measured: Responses, found: Verdicts, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the latents that take part which are selective, in each resample of scenes, (resamples, n_causes).

    What was chosen on the other split is held fixed. In a resample, the test of the difference of two means is that of
    the normal distribution, at the largest p-value that counts in `verdicts`.

    Parameters
    ----------
    weights
        (resamples, n_scenes), how often each scene is drawn.
    """
    n_causes = measured.network.shape[1]
    counts = np.zeros((len(weights), n_causes))
    chosen, least = np.flatnonzero(found.found), NormalDist().inv_cdf(1 - found.largest_p)
    for start in range(0, len(chosen), _CHUNK):
        part = chosen[start : start + _CHUNK]
        first = found.first[part]
        holds = _clear(measured.only(found.active[part]), first, weights, least)
        for cause in np.unique(first).tolist():
            counts[:, cause] += holds[:, first == cause].sum(axis=1)
    return counts / max(len(found.active), 1)


def _clear(
    responses: Responses, first: NDArray[np.int64], weights: NDArray[np.float64], least: float
) -> NDArray[np.bool_]:
    """Whether each latent's response to its first cause is above every other one in each resample, (resamples, n)."""
    values = responses.relative(np.arange(len(first)))
    clear = np.ones((len(weights), len(first)), dtype=bool)
    for own in np.unique(first).tolist():
        members = np.flatnonzero(first == own)
        for other in range(values.shape[1]):
            if other != own:
                clear[:, members] &= _z(values[:, own, members], values[:, other, members], weights) >= least
    return clear


def _z(own: NDArray[np.float64], other: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Difference of means over its standard error, (resamples, n), of values (n_scenes, n)."""
    paired = not (np.isnan(own[:, 0]) ^ np.isnan(other[:, 0])).any()
    with np.errstate(divide="ignore", invalid="ignore"):
        if paired:
            mean, error = _moments(own - other, weights)
            return np.asarray(mean / np.sqrt(error))
        (mean, error), (mean_other, error_other) = _moments(own, weights), _moments(other, weights)
        return np.asarray((mean - mean_other) / np.sqrt(error + error_other))


def _moments(
    rows: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean of rows (n_scenes, n), and the squared standard error of it, (resamples, n) each."""
    known = ~np.isnan(rows[:, 0])
    rows, weights = rows[known], weights[:, known]
    n = weights.sum(axis=1, keepdims=True)
    mean = weights @ rows / n
    return mean, np.maximum(weights @ rows**2 / n - mean**2, 0) / n
