"""Whether a latent's active patches lie together: Moran's I on the grid of patches (visaebench's M1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.features.benchmark.measured import UNDEFINED, Estimate, Metric, NotMeasured, about
from visae.features.benchmark.pictures import Pictures
from visae.features.blocks import codes_by_latents
from visae.features.monosemanticity import FEWEST
from visae.features.ranking import runs_of

FEWEST_PATCHES = 5
"""Active patches below which a picture says nothing of a latent."""

MOST_OF_GRID = 0.9
"""Share of active patches above which a latent counts as background in a picture."""

# What visaebench limits: pictures of a latent that it needs and that it stops after, which it looks at in groups, and
# latents that it draws.
_PICTURES, _STOP_AFTER, _GROUP, _LATENTS = 50, 200, 64, 500
_SMALLEST = 1e-10
# Codes at once: with their places and neighbours half a gigabyte.
_BLOCK_CODES = 4_000_000
# Four of the eight neighbours, as rows down and columns right; the others are theirs.
_NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))


@dataclass
class _Mean:
    """Means over latents of their means over pictures, gathered range by range, with what each picture adds."""

    influence: NDArray[np.float64]
    means: list[NDArray[np.float64]]

    def add(self, latent: NDArray, picture: NDArray, score: NDArray, kept: NDArray[np.bool_], fewest: int) -> None:
        """Add the scores (n,) of latents in pictures, those that are kept; latents of too few pictures are left out."""
        latent, picture, score = latent[kept], picture[kept], score[kept]
        counts = np.bincount(latent)
        mean = np.bincount(latent, score) / np.maximum(counts, 1)
        enough = counts[latent] >= fewest
        self.means.append(mean[counts >= fewest])
        shift = (score - mean[latent]) / counts[latent]
        self.influence += np.bincount(picture[enough], shift[enough], minlength=len(self.influence))

    @property
    def n(self) -> int:
        """Latents that have a mean."""
        return sum(map(len, self.means))

    def estimate(self, drawn: NDArray[np.integer] | None = None) -> Estimate:
        """Mean over latents, or those drawn of them, with its interval over pictures and over the draw."""
        means = np.concatenate(self.means)
        variance = (self.influence**2).sum() / len(means) ** 2
        if drawn is None:
            return about(float(means.mean()), variance, -1, 1)
        spread = means.var() / len(drawn) * (1 - len(drawn) / len(means))
        return about(float(means[drawn].mean()), variance + spread, -1, 1)


def localization(pictures: Pictures, grid: tuple[int, int], n_tokens: int, seed: int) -> Metric:
    """M1, feature_localization.

    Parameters
    ----------
    pictures
        What is looked at.
    grid
        Rows and columns of patches.
    n_tokens
        Patches that the codes have of each picture.
    seed
        Of visaebench's draw of latents.

    Raises
    ------
    NotMeasured
        If the codes are not of whole pictures, or of pictures with too few patches.
    """
    if n_tokens != grid[0] * grid[1]:
        raise NotMeasured(f"the codes are of {n_tokens} of the {grid[0]} x {grid[1]} patches of each picture")
    package, every = (_Mean(np.zeros(len(pictures.ids)), []) for _ in range(2))
    for latents, codes in codes_by_latents(pictures.codes, _BLOCK_CODES, "patches"):
        latent, picture, score = morans(codes, latents, pictures.ids, grid)
        every.add(latent, picture, score, np.ones(len(latent), dtype=bool), FEWEST)
        package.add(latent, picture, score, _before_stop(latent, picture), _PICTURES)
    value = Estimate(0.0, *UNDEFINED[1:])  # what visaebench gives where it has looked at nothing
    if package.n:
        every_one = package.n <= _LATENTS
        value = package.estimate(
            None if every_one else np.random.RandomState(seed).choice(package.n, _LATENTS, replace=False)
        )
    corrected = every.estimate() if every.n else UNDEFINED
    limits = f"of {_PICTURES} pictures or more, by their first {_STOP_AFTER}"
    return Metric(
        *("feature_localization", "visaebench", True, value, corrected, min(package.n, _LATENTS), "latents", limits),
        f"all pictures of the {every.n} latents of {FEWEST} or more",
    )


def morans(
    codes: pl.LazyFrame, latents: range, pictures: range, grid: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Moran's I, with the eight neighbours of a patch, of every latent in every picture where it can be had.

    Silent patches count as 0. Only codes are read: a sum over pairs of patches about the mean is one over pairs of
    active ones, less what the mean adds.

    Parameters
    ----------
    codes
        image_id, token, latent, value of `latents`.
    latents, pictures
        Ranges that are looked at.
    grid
        Rows and columns of patches.

    Returns
    -------
    tuple
        Latent and picture, counted from the first of the range, and I, (n,) each, sorted.
    """
    n_rows, n_columns = grid
    n = n_rows * n_columns
    found = (
        codes.filter(pl.col("image_id").is_between(pictures.start, pictures.stop, closed="left"), pl.col("value") != 0)
        .sort("latent", "image_id", "token")
        .collect()
    )
    value, token = (found[name].to_numpy().astype(kind) for name, kind in (("value", float), ("token", np.int64)))
    pair = (found["latent"].to_numpy().astype(np.int64) - latents.start) * len(pictures)
    pair += found["image_id"].to_numpy() - pictures.start
    last = runs_of(pair)[1]
    ends = np.flatnonzero(last == np.arange(len(pair)))
    distinct, active = pair[ends], np.diff(ends, prepend=-1)
    group = np.repeat(np.arange(len(ends)), active)
    row, column = np.divmod(token, n_columns)
    rows, columns = (3 - (at == 0) - (at == size - 1) for at, size in ((row, n_rows), (column, n_columns)))
    degree = rows * columns - 1

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(group, values, minlength=len(distinct)), dtype=np.float64)

    total = 2 * (n_rows * (n_columns - 1) + (n_rows - 1) * n_columns + 2 * (n_rows - 1) * (n_columns - 1))
    mean = summed(value) / n
    below = summed(value**2) - n * mean**2
    together = summed(_with_neighbours(pair * n + token, value, row, column, grid))
    above = 2 * together - 2 * mean * summed(degree * value) + total * mean**2
    valid = (active >= FEWEST_PATCHES) & (active <= int(MOST_OF_GRID * n)) & (below > _SMALLEST)
    latent, picture = np.divmod(distinct[valid], len(pictures))
    return latent, picture, np.asarray(n / total * above[valid] / below[valid])


def _with_neighbours(
    place: NDArray[np.int64],
    value: NDArray[np.float64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    grid: tuple[int, int],
) -> NDArray[np.float64]:
    """Each value times the sum of those of its later neighbours, (n,); `place` numbers latent, picture and patch."""
    sums: NDArray[np.float64] = np.zeros(len(value))
    for down, right in _NEIGHBOURS:
        inside = np.flatnonzero((row + down < grid[0]) & (column + right >= 0) & (column + right < grid[1]))
        wanted = place[inside] + down * grid[1] + right
        at = np.minimum(np.searchsorted(place, wanted), len(place) - 1)
        sums[inside] += np.where(place[at] == wanted, value[at], 0)
    return np.asarray(value * sums)


def _before_stop(latent: NDArray[np.int64], picture: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which scores, sorted by latent and picture, visaebench looks at before it has enough of a latent."""
    group = latent * (1 + picture.max(initial=0)) + picture // _GROUP

    def first(keys: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(keys, keys)

    return first(group) - first(latent) < _STOP_AFTER
