"""Patches that edits change, counted per picture, and the shares, intervals and paired tests that come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visae.features.resampling import p_value
from visae.heads.bootstrap import class_mean, interval
from visae.interventions.targets import Target

MEASURES = ("target_change", "other_change", "selectivity", "miou_change")

# Arm, size and scale.
Key = tuple[str, str, float]


@dataclass
class EditCounts:
    """One edit of one class, means over draws.

    Attributes
    ----------
    target, other
        (n,) patches of each picture whose prediction changed, edited ones and others.
    hits, predicted
        (n, n_channels) labelled patches that are predicted as each class, rightly and at all.
    becomes
        (n_channels,) what edited patches are predicted as afterwards.
    """

    target: NDArray[np.float64]
    other: NDArray[np.float64]
    hits: NDArray[np.float64]
    predicted: NDArray[np.float64]
    becomes: NDArray[np.float64]

    @classmethod
    def zeros(cls, n_images: int, n_channels: int) -> EditCounts:
        """Nothing counted yet."""
        by_class = (n_images, n_channels)
        return cls(np.zeros(n_images), np.zeros(n_images), np.zeros(by_class), np.zeros(by_class), np.zeros(n_channels))


@dataclass
class ClassCounts:
    """All edits of one class on its n pictures.

    Attributes
    ----------
    images
        (n,) the pictures' places in the measured split.
    n_target, n_other
        (n,) edited patches, and others.
    truth
        (n, n_channels) patches labelled as each class.
    """

    target: Target
    images: NDArray[np.int64]
    n_target: NDArray[np.int64]
    n_other: NDArray[np.int64]
    truth: NDArray[np.int64]
    edits: dict[Key, EditCounts] = field(default_factory=dict)

    def edit(self, key: Key) -> EditCounts:
        """Counts of an edit, zeros where there are none yet."""
        if key not in self.edits:
            self.edits[key] = EditCounts.zeros(*self.truth.shape)
        return self.edits[key]


Shares = Mapping[str, NDArray[np.float64]]
"""By measure: a share, (), or one a resample, (resamples,)."""


def shares(counts: ClassCounts, key: Key, weights: NDArray[np.float64] | None = None) -> Shares:
    """MEASURES of an edit; with weights (resamples, pictures of the split) of every resample."""
    return _shares(_sums(counts, key, weights))


def pooled_shares(classes: list[ClassCounts], key: Key, weights: NDArray[np.float64] | None = None) -> Shares:
    """MEASURES over the patches of all classes together."""
    parts = [_sums(counts, key, weights) for counts in classes]
    return _shares({name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]})


def mean_shares(by_class: list[Shares]) -> Shares:
    """Means over classes."""
    return {measure: class_mean(np.stack([shares[measure] for shares in by_class], -1)) for measure in by_class[0]}


def _sums(counts: ClassCounts, key: Key, weights: NDArray[np.float64] | None) -> dict[str, NDArray[np.float64]]:
    """Sums over pictures of all that is counted, (..., ) or (..., n_channels)."""
    edit, unedited = counts.edits[key], counts.edits[("none", "natural", key[2])]
    own = None if weights is None else weights[:, counts.images]
    values = {
        "target": edit.target,
        "other": edit.other,
        "n_target": counts.n_target,
        "n_other": counts.n_other,
        "truth": counts.truth,
        "hits": edit.hits,
        "predicted": edit.predicted,
        "hits_before": unedited.hits,
        "predicted_before": unedited.predicted,
    }
    return {name: np.asarray(value.sum(axis=0) if own is None else own @ value) for name, value in values.items()}


def _shares(sums: dict[str, NDArray[np.float64]]) -> Shares:
    target = _ratio(sums["target"], sums["n_target"])
    # Where a class fills its pictures there are no other patches, and nothing else can change.
    other = np.where(np.isnan(target), np.nan, np.nan_to_num(_ratio(sums["other"], sums["n_other"])))
    before, after = (
        class_mean(_ratio(sums[f"hits{when}"], sums["truth"] + sums[f"predicted{when}"] - sums[f"hits{when}"]))
        for when in ("_before", "")
    )
    return {
        "target_change": target,
        "other_change": other,
        "selectivity": target - other,
        "miou_change": after - before,
    }


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def with_intervals(found: Shares, resampled: Shares) -> dict[str, float]:
    """Each measure with its `_low` and `_high`."""
    row: dict[str, float] = {}
    for measure in found:
        low, high = interval(resampled[measure])
        row |= {measure: float(found[measure]), f"{measure}_low": low, f"{measure}_high": high}
    return row


def sign_flips(n_images: int, flips: int, seed: int) -> NDArray[np.int8]:
    """Signs (flips, n_images) for paired tests; one matrix serves all classes, so that tests keep their pairing."""
    return (2 * np.random.default_rng([seed, 3]).integers(2, size=(flips, n_images)) - 1).astype(np.int8)


def selectivity_difference(counts: ClassCounts, better: Key, worse: Key, n_images: int) -> NDArray[np.float64]:
    """How much each picture of the split adds to the difference of two edits' selectivity, (n_images,)."""
    a, b = counts.edits[better], counts.edits[worse]
    n_target, n_other = counts.n_target.sum(), max(counts.n_other.sum(), 1)
    added = np.zeros(n_images)
    added[counts.images] = (a.target - b.target) / n_target - (a.other - b.other) / n_other
    return added


def paired_p(difference: NDArray[np.float64], signs: NDArray[np.int8]) -> float:
    """Chance of so large a sum of differences (n_images,) if the two edits were swapped in each picture at random."""
    # Sums of the same numbers in another order are not equal to the last bit.
    observed = difference.sum() - 1e-12
    return float(p_value(observed, signs @ difference))
