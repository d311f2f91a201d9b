"""What is counted of edits of one class, picture by picture, and the shares that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from visae.heads.bootstrap import class_mean
from visae.intervals import interval

Way = Literal["suppress", "insert"]
"""What is done to a class's latents: set to another value where the class is, or to a value where it is not."""

SUPPRESS: Way = "suppress"
INSERT: Way = "insert"

# Arm, size and scale.
Key = tuple[str, str, float]

COMMON = ("target_change", "other_change", "selectivity")
"""Measures of every task: shares of the edited units and of the others whose answer changes, and their difference."""

Shares = Mapping[str, NDArray[np.float64]]
"""By measure: a share, (), or one a resample, (resamples,)."""


@dataclass(frozen=True)
class Target:
    """A class and the latents chosen for it, the best first; `score` is the best one's on the selection split."""

    class_id: int
    class_name: str
    latents: tuple[int, ...]
    score: float


@dataclass
class EditCounts:
    """One edit of one class, means over draws.

    Attributes
    ----------
    values
        (n, k) what the task counts of each picture; its columns are the task's own.
    becomes
        (..., n_classes) what the target units are taken for afterwards, and what else the task counts by class.
    """

    values: NDArray[np.float64]
    becomes: NDArray[np.float64]


@dataclass
class ClassCounts:
    """All edits of one class in one way, on its n pictures.

    Attributes
    ----------
    images
        (n,) the pictures' places in the measured split.
    n_target, n_other
        (n,) units that the edit is about, and others.
    labels
        (n, ...) what the task knows of the pictures' classes.
    edits
        What was counted, by arm, size and scale.
    """

    target: Target
    way: Way
    images: NDArray[np.int64]
    n_target: NDArray[np.int64]
    n_other: NDArray[np.int64]
    labels: NDArray[np.int64]
    edits: dict[Key, EditCounts] = field(default_factory=dict)

    def add(self, key: Key, rows: slice, values: NDArray[np.float64], becomes: NDArray[np.float64], draws: int) -> None:
        """Count one draw of several on some pictures: values (b, k) and becomes (..., n_classes)."""
        if key not in self.edits:
            self.edits[key] = EditCounts(np.zeros((len(self.images), values.shape[1])), np.zeros(becomes.shape))
        self.edits[key].values[rows] += values / draws
        self.edits[key].becomes += becomes / draws

    def only(self, rows: NDArray[np.integer]) -> ClassCounts:
        """Return some of the pictures, by their places among these, nothing counted yet."""
        parts = {name: getattr(self, name)[rows] for name in ("images", "n_target", "n_other", "labels")}
        return replace(self, **parts, edits={})


def common_shares(
    target: NDArray[np.float64], n_target: NDArray, other: NDArray[np.float64], n_other: NDArray
) -> dict[str, NDArray[np.float64]]:
    """COMMON measures from sums over pictures: units that changed, and how many there are."""
    changed = ratio(target, n_target)
    # Where a class fills its pictures there are no other units, and nothing else can change.
    beside = np.where(np.isnan(changed), np.nan, np.nan_to_num(ratio(other, n_other)))
    return {"target_change": changed, "other_change": beside, "selectivity": changed - beside}


def mean_shares(by_class: list[Shares]) -> Shares:
    """Means over classes."""
    return {measure: class_mean(np.stack([shares[measure] for shares in by_class], -1)) for measure in by_class[0]}


def ratio(above: NDArray[np.float64], below: NDArray) -> NDArray[np.float64]:
    """Quotient, NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def with_intervals(found: Shares, resampled: Shares) -> dict[str, float]:
    """Each measure with its `_low` and `_high`."""
    row: dict[str, float] = {}
    for measure in found:
        low, high = interval(resampled[measure])
        row |= {measure: float(found[measure]), f"{measure}_low": low, f"{measure}_high": high}
    return row
