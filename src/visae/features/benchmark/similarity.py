"""How alike a latent's pictures are for another model (visaebench's M5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from visae.features.benchmark.measured import UNDEFINED, Estimate, Metric, about
from visae.features.benchmark.pictures import Pictures
from visae.features.monosemanticity import FEWEST, left_out_scores

TOP = 16
"""Pictures of each latent that visaebench compares."""

_LATENTS = 1000


class _Mean:
    """Mean of scores over latents, gathered range by range, with what leaving out each picture does to it."""

    def __init__(self, n_pictures: int) -> None:
        self.scores: list[NDArray[np.float64]] = []
        self.shift = np.zeros(n_pictures)

    def add(self, weights: csr_array, embeddings: NDArray[np.floating]) -> None:
        """Add the latents of weights (n_latents, n_pictures), those that have a pair of pictures."""
        score, left = left_out_scores(weights, embeddings)
        latent = np.repeat(np.arange(len(score)), np.diff(weights.indptr))
        # Where a latent has no pair left without the picture, its score stays what it is.
        shift = np.nan_to_num(left - score[latent], nan=0, posinf=0, neginf=0)
        self.shift += np.bincount(weights.indices, shift, minlength=len(self.shift))
        self.scores.append(score[np.isfinite(score)])

    @property
    def n(self) -> int:
        """Latents that have a score."""
        return sum(map(len, self.scores))

    def estimate(self, of: int | None = None) -> Estimate:
        """Mean with its interval over pictures; `of` says how many latents there were to draw these from."""
        scores = np.concatenate(self.scores)
        variance = (self.shift / len(scores)).var() * (len(self.shift) - 1)
        if of is not None:
            variance += scores.var() / len(scores) * (1 - len(scores) / of)
        return about(float(scores.mean()), variance, -1, 1)


def similarity(pictures: Pictures, embeddings: NDArray[np.floating], seed: int) -> Metric:
    """M5, monosemanticity.

    visaebench takes the 16 strongest pictures of each of 1,000 latents, weighted from 0 to 1 over the range of the
    latent's values; `corrected` is the score of Pach et al. over all pictures of every latent that has ten or more.

    Parameters
    ----------
    pictures
        What is looked at.
    embeddings
        (n_pictures, d) of length 1, by another model.
    seed
        Of visaebench's draw of latents.
    """
    alive = np.flatnonzero(pictures.active_latents())
    drawn = alive
    if len(alive) > _LATENTS:
        drawn = np.random.RandomState(seed).choice(alive, _LATENTS, replace=False)
    package, every = _Mean(len(pictures.ids)), _Mean(len(pictures.ids))
    for latents, values in pictures.blocks():
        matrix = values.astype(np.float64)
        here = np.sort(drawn[(drawn >= latents.start) & (drawn < latents.stop)]) - latents.start
        package.add(_strongest(matrix[here]), embeddings)
        every.add(matrix[np.diff(matrix.indptr) >= FEWEST], embeddings)
    value = package.estimate(len(alive)) if package.n else Estimate(0.0, *UNDEFINED[1:])
    corrected = every.estimate() if every.n else UNDEFINED
    return Metric(
        *("monosemanticity", "visaebench", True, value, corrected, package.n, "latents", f"by their {TOP} strongest"),
        f"all pictures of the {every.n} latents of {FEWEST} or more",
    )


def _strongest(values: csr_array) -> csr_array:
    """Weights of each latent's strongest pictures (n_latents, n_pictures), from 0 to 1 over its range of values."""
    counts = np.diff(values.indptr)
    latent = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((values.indices, -values.data, latent))
    rank = np.arange(len(order)) - np.repeat(values.indptr[:-1], counts)
    latent, picture, value = latent[order], values.indices[order], values.data[order]
    starts, ends = values.indptr[:-1][latent], values.indptr[1:][latent] - 1
    # A latent that is silent in some picture starts from 0.
    lowest = np.where(counts[latent] == values.shape[1], value[ends], 0)
    extent = value[starts] - lowest
    weight = (value - lowest) / np.where(extent == 0, 1, extent)
    kept = (rank < TOP) & (weight > 0)
    return csr_array((weight[kept], (latent[kept], picture[kept])), values.shape)
