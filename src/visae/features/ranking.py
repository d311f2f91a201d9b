"""How well every latent ranks the units of every class: F1, average precision and ROC AUC of sparse codes, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

THRESHOLD_QUANTILES = (0.25, 0.5, 0.75, 0.9)
"""Besides 0, a latent's threshold may be one of these quantiles of its active values on the fit split."""

N_THRESHOLDS = 1 + len(THRESHOLD_QUANTILES)


@dataclass(frozen=True)
class Entries:
    """Codes of a range of latents on one split; each latent's come together, its largest value first.

    Attributes
    ----------
    picture, token
        (n,) unit of each code; pictures are counted from the first of the split.
    latent
        (n,) counted from the first of the range, ascending.
    value
        (n,) above 0.
    n_latents
        Latents of the range, active or not.
    """

    picture: NDArray[np.int32]
    token: NDArray[np.int32]
    latent: NDArray[np.int32]
    value: NDArray[np.float32]
    n_latents: int

    @classmethod
    def of(cls, codes: pl.LazyFrame, latents: range, pictures: range) -> Entries:
        """Collect and sort the codes of a range of latents on consecutive pictures."""
        found = (
            codes.filter(pl.col("image_id").is_between(pictures.start, pictures.stop, closed="left"))
            # What is not above 0 is silent, and tied with all that has no code.
            .filter(pl.col("value") > 0)
            .select(
                (pl.col("image_id") - pictures.start).cast(pl.Int32),
                pl.col("token").cast(pl.Int32),
                (pl.col("latent") - latents.start).cast(pl.Int32),
                pl.col("value").cast(pl.Float32),
            )
            .sort("latent", "value", descending=[False, True])
            .collect()
        )
        picture, token, latent, value = (series.to_numpy() for series in found.get_columns())
        return cls(picture, token, latent, value, len(latents))

    def __getitem__(self, chosen: NDArray[np.bool_] | slice) -> Entries:
        return Entries(
            self.picture[chosen], self.token[chosen], self.latent[chosen], self.value[chosen], self.n_latents
        )

    def of_latent(self, latent: int) -> Entries:
        """Return the codes of one latent."""
        return self[slice(self.starts[latent], self.starts[latent + 1])]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(n_latents + 1,) where the codes of each latent start."""
        counts = np.bincount(self.latent, minlength=self.n_latents)
        return np.concatenate([[0], np.cumsum(counts)])

    @cached_property
    def runs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last position, (n,) each, of the run of equal values of one latent that a code is in."""
        return runs_of(self.latent, self.value)

    def above(self, thresholds: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
        """Which codes, (n,), are above each threshold (n_latents, N_THRESHOLDS) but the first, which all are above."""
        return [self.value > thresholds[self.latent, number] for number in range(1, N_THRESHOLDS)]

    def thresholds(self) -> NDArray[np.float32]:
        """(n_latents, N_THRESHOLDS) 0 and quantiles of each latent's values; infinite where it has none."""
        counts = np.diff(self.starts)
        found = np.full((self.n_latents, N_THRESHOLDS), np.inf, dtype=np.float32)
        active = counts > 0
        found[active, 0] = 0
        for number, share in enumerate(THRESHOLD_QUANTILES, start=1):
            place = (counts[active] - 1) * (1 - share)
            upper = np.floor(place).astype(np.int64)
            lower = np.minimum(upper + 1, counts[active] - 1)
            first, second = (self.value[self.starts[:-1][active] + at].astype(np.float64) for at in (upper, lower))
            found[active, number] = first + (place - upper) * (second - first)
        return found


@dataclass(frozen=True)
class Scores:
    """Scores of latents (first axis) for classes (second axis); NaN where a class, or all others, have no unit.

    Attributes
    ----------
    hits
        (n_latents, n_classes, N_THRESHOLDS) units of the class on which the latent is above its threshold.
    positives
        (n_classes,) units of the class.
    average_precision, auc
        (n_latents, n_classes).
    """

    hits: NDArray[np.int64]
    positives: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    auc: NDArray[np.float64]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(n_latents, N_THRESHOLDS) units of any class on which the latent is above its threshold."""
        return self.hits.sum(axis=1)

    @cached_property
    def f1(self) -> NDArray[np.float64]:
        """(n_latents, n_classes, N_THRESHOLDS)."""
        with np.errstate(invalid="ignore"):
            f1 = 2 * self.hits / (self.predicted[:, None] + self.positives[:, None])
        f1[:, self.positives == 0] = np.nan
        return f1


def concept_scores(
    entries: Entries, classes: NDArray[np.integer], positives: NDArray[np.int64], above: list[NDArray[np.bool_]]
) -> Scores:
    """Score every latent for every class.

    Average precision and AUC are those of scikit-learn on the dense values: units with equal values count as one
    step, and all units without a code are tied at the bottom. The cost grows with the codes, not with the units.

    Parameters
    ----------
    entries
        Codes; those on units without a class take no part.
    classes
        (n,) class number of each code's unit, negative where it has none.
    positives
        (n_classes,) units of each class, codes or not.
    above
        Which codes are above each threshold but the first: `entries.above`.
    """
    n_latents, n_classes, total = entries.n_latents, len(positives), int(positives.sum())
    # Where units have no class, their codes get one of their own, the last, which takes no part.
    known = classes >= 0
    key = entries.latent.astype(np.int64) * (n_classes + 1) + np.where(known, classes, n_classes)

    def by_class(weights: NDArray | None = None, chosen: NDArray[np.bool_] | slice = slice(None)) -> NDArray:
        sums = np.bincount(key[chosen], weights, minlength=n_latents * (n_classes + 1))
        return sums.reshape(n_latents, n_classes + 1)

    counts = by_class()
    active = counts[:, :-1]
    hits = np.stack([active] + [by_class(chosen=chosen)[:, :-1] for chosen in above], axis=2)
    first, last = entries.runs
    # Units with a class in front of each position, the first included.
    ranks = np.concatenate([[0], np.cumsum(known)])
    start = ranks[entries.starts[:-1]][entries.latent]
    higher, down_to = ranks[first] - start, ranks[last + 1] - start
    silent = (total - active.sum(axis=1))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = _hits_at(key, counts, entries.runs) / down_to
        # Silent units come last, in one step that reaches recall 1 with the precision of guessing.
        average_precision = by_class(precision)[:, :-1] / positives + (positives - active) / total
        # Ranks from the bottom, ties sharing theirs.
        rank_sums = by_class(total - (higher + down_to - 1) / 2)[:, :-1] + (positives - active) * (silent + 1) / 2
        auc = (rank_sums - positives * (positives + 1) / 2) / (positives * (total - positives))
    return Scores(hits, positives, np.where(positives > 0, average_precision, np.nan), auc)


def runs_of(*keys: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last position, (n,) each, of the run of neighbours that are equal in all keys."""
    n = len(keys[0])
    if n == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ends = np.zeros(n, dtype=bool)
    ends[-1] = True
    for key in keys:
        ends[:-1] |= key[1:] != key[:-1]
    last = np.flatnonzero(ends)
    lengths = np.diff(last, prepend=-1)
    return np.repeat(last - lengths + 1, lengths), np.repeat(last, lengths)


def _hits_at(
    key: NDArray[np.int64], counts: NDArray[np.int64], runs: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Codes of the same latent and class, (n,), down to the end of the run of equal values that a code is in.

    `counts` has the codes of each key.
    """
    # Within a latent and class the order is still that of values, so that ties are neighbours.
    order = np.argsort(key, kind="stable")
    together = key[order]
    place = np.arange(len(key))
    tied = np.flatnonzero((runs[0] != runs[1])[order])
    place[tied] = tied[runs_of(together[tied], runs[1][order[tied]])[1]]
    starts = np.cumsum(counts.ravel()) - counts.ravel()
    hits = np.empty(len(key), dtype=np.int64)
    hits[order] = place - starts[together] + 1
    return hits
