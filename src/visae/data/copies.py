"""Pictures that a data set has more than once: in two splits they make a measurement too good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visae.data.tally import Tally

Pair = tuple[int, int]


@dataclass(frozen=True)
class Copies:
    """How many pictures have copies, and the image ids of one such pair each.

    Attributes
    ----------
    n_between
        Pictures with a copy in another split.
    n_within
        Pictures that are in their split already.
    n_two_labels
        Pictures that are there already under another label.
    """

    n_between: int
    between: Pair | None
    n_within: int
    within: Pair | None
    n_two_labels: int
    two_labels: Pair | None


def find_copies(tally: Tally) -> Copies:
    """Find pictures whose 64 bits of `visae.data.checks.Checked.copy_key` agree.

    Among a million pictures, two that differ agree in them with a probability of 3e-8.
    """
    keys = np.frombuffer(tally.copy_keys, dtype=np.uint64)
    labels = np.frombuffer(tally.labels, dtype=np.int32)
    splits = np.repeat(np.arange(len(tally.n_images), dtype=np.int16), list(tally.n_images.values()))
    order = np.argsort(keys, kind="stable")
    keys, splits, labels = keys[order], splits[order], labels[order]
    # Ids of a split are contiguous, so splits do not fall within equal keys: the first and last decide.
    groups = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    ends = np.append(groups[1:], len(keys))
    n_between = int((ends - groups)[splits[groups] != splits[ends - 1]].sum())
    again, same_split = keys[1:] == keys[:-1], splits[1:] == splits[:-1]
    within, two_labels = again & same_split, again & (labels[1:] != labels[:-1])

    def first(found: NDArray[np.bool_]) -> Pair | None:
        place = int(found.argmax()) if found.any() else None
        return None if place is None else (int(order[place]), int(order[place + 1]))

    return Copies(
        n_between,
        first(again & ~same_split),
        int(within.sum()),
        first(within),
        int(two_labels.sum()),
        first(two_labels),
    )
