"""Pictures of a split whose class and group are known, and the halves of it that are chosen and measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visae.errors import DataError
from visae.tasks.pictures import PictureTask


@dataclass(frozen=True)
class Grouped:
    """Pictures of a split, each of a class that the task knows and a group.

    Attributes
    ----------
    ids
        (n,) in ascending order.
    truth
        (n,) class numbers of the task.
    group
        (n,) places in `names`.
    names
        Groups.
    """

    ids: NDArray[np.int64]
    truth: NDArray[np.int64]
    group: NDArray[np.int64]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, places: NDArray[np.integer] | NDArray[np.bool_]) -> Grouped:
        """Return some of the pictures."""
        return Grouped(self.ids[places], self.truth[places], self.group[places], self.names)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Pictures of each group, (n_groups,)."""
        return np.bincount(self.group, minlength=len(self.names))

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Pairs of a group and a class number that some picture has."""
        return sorted(set(zip(self.group.tolist(), self.truth.tolist(), strict=True)))

    def of_cell(self, cell: tuple[int, int]) -> NDArray[np.int64]:
        """Places of the pictures of a group and class number."""
        return np.flatnonzero((self.group == cell[0]) & (self.truth == cell[1]))


@dataclass(frozen=True)
class Halves:
    """A split that is cut in two, group by group.

    Attributes
    ----------
    chosen, measured
        What is chosen on, and what is measured on; every group has pictures in both.
    left_out
        Groups that cannot be measured: `group`, `n_train`, `n_val`, `reason`.
    """

    chosen: Grouped
    measured: Grouped
    left_out: list[dict[str, Any]]


def grouped(task: PictureTask, split: str, groups: Mapping[int, str], names: Sequence[str]) -> Grouped:
    """Pictures of a split whose class the task knows and whose group is one of some names."""
    numbers = {name: number for number, name in enumerate(names)}
    found = [
        (i, task.numbers[task.labels[i]], numbers[groups[i]])
        for i in task.store.image_ids(split)
        if task.labels.get(i) in task.numbers and groups.get(i) in numbers
    ]
    ids, truth, group = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return Grouped(ids, truth, group, names)


def halved(task: PictureTask, groups: Mapping[int, str], fit: str, measured: str, seed: int) -> Halves:
    """Cut the measured split in two halves, in each of which every group is.

    Parameters
    ----------
    groups
        Group by picture.
    fit, measured
        Names of the split that was trained on, and of that which is cut.
    seed
        Draws the halves.

    Raises
    ------
    DataError
        If no picture has a group, or fewer than two groups have two pictures in the measured split.
    """
    if not groups:
        raise DataError(
            f"{task.store.folder}: no picture of the data set belongs to a group; give a data set of kind table a "
            "column group, or one of kind scenes a shortcut"
        )
    names = sorted(set(groups.values()))
    known = {split: grouped(task, split, groups, names) for split in (fit, measured)}
    sizes = known[measured].sizes
    left_out = [
        {"group": name, "n_train": int(n_train), "n_val": int(n), "reason": _why(measured, int(n))}
        for name, n_train, n in zip(names, known[fit].sizes, sizes, strict=True)
        if n < 2
    ]
    kept = [name for name, n in zip(names, sizes, strict=True) if n >= 2]
    if len(kept) < 2:
        without = ", ".join(f"{row['group']} ({row['n_val']})" for row in left_out) or "none"
        raise DataError(
            f"{task.store.folder}: {len(kept)} group has two pictures or more in split {measured!r} whose class "
            f"{task.name} knows, one to choose on and one to measure on; two such groups are needed. With "
            f"fewer: {without}"
        )
    whole = grouped(task, measured, groups, kept)
    generator = np.random.default_rng([seed, 31])
    first = np.zeros(len(whole), dtype=bool)
    for number in range(len(kept)):
        own = generator.permutation(np.flatnonzero(whole.group == number))
        first[own[: len(own) // 2]] = True
    return Halves(whole.at(first), whole.at(~first), left_out)


def _why(split: str, n: int) -> str:
    if n:
        return f"split {split} has one picture of it, which cannot be chosen on and measured on"
    return f"split {split} has no picture of it whose class is known"
