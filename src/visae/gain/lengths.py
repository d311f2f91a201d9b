"""The length of an edit at which half of the targets turn, found on a ladder of lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

HALF = 0.5

Turned = Callable[[Mapping[str, float]], Mapping[str, float]]
"""Share of the targets that turn, by name, when each name's edit has the length that is given for it."""


def half_lengths(turned: Turned, names: Sequence[str], lengths: Sequence[float]) -> dict[str, float]:
    """Shortest length at which half of the targets turn, by name; infinite where no length of the ladder does it.

    Each name's two neighbouring lengths between which the share passes a half are found by bisection, and the length
    is interpolated between them; an edit without length turns nothing. All names are treated alike, so that where they
    are exchangeable their lengths are too. Where a share does not grow with the length, what is found is one of the
    places where it passes a half.

    Parameters
    ----------
    turned
        Measures, for some of the names at a time.
    lengths
        Growing, above 0.
    """
    rungs = [0.0, *lengths]
    known = {name: {0: 0.0} for name in names}
    below, above = dict.fromkeys(names, 0), dict.fromkeys(names, len(rungs))
    while asked := {name: (below[name] + above[name]) // 2 for name in names if above[name] - below[name] > 1}:
        for name, share in turned({name: rungs[rung] for name, rung in asked.items()}).items():
            known[name][asked[name]] = share
            (above if share >= HALF else below)[name] = asked[name]
    return {
        name: np.inf
        if above[name] == len(rungs)
        else _between(rungs[below[name]], rungs[above[name]], known[name][below[name]], known[name][above[name]])
        for name in names
    }


def _between(shorter: float, longer: float, lower: float, upper: float) -> float:
    """Length at which a straight line from (shorter, lower) to (longer, upper) is at a half."""
    return shorter + (HALF - lower) / (upper - lower) * (longer - shorter)


def first_halves(lengths: Sequence[float], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where curves (n, len(lengths)), one a resample, first reach a half, (n,); infinite where they never do."""
    rungs = np.concatenate([[0.0], lengths])
    curves = np.concatenate([np.zeros((len(shares), 1)), shares], axis=1)
    reached = curves >= HALF
    at = np.where(reached.any(axis=1), reached.argmax(axis=1), 0)
    rows = np.arange(len(curves))
    lower, upper = curves[rows, at - 1], curves[rows, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = rungs[at - 1] + (HALF - lower) / (upper - lower) * (rungs[at] - rungs[at - 1])
    return np.where(at > 0, found, np.inf)
