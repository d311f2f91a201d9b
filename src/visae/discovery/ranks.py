"""The set of an SAE among those of dictionaries that never learned, all chosen and moved alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import normalize

from visae.arms.changes import AddVector
from visae.discovery.choice import LatentSet
from visae.experiments.runner import Runner
from visae.experiments.untrained import moved_along
from visae.tasks.counts import SUPPRESS, ClassCounts


def ranked_among_untrained(
    runner: Runner, counts: ClassCounts, sets: Sequence[LatentSet | None], scale: float
) -> NDArray[np.float64]:
    """Effect of each set on a class, (len(sets),); of a dictionary without one minus infinity.

    All move by the median of the lengths of their own changes. Were it the first one's, it would be the only one
    that moves by what is natural to it; were it the longest, everything might flip, and ranks say nothing.

    Parameters
    ----------
    counts
        Pictures of the class, suppressed or inserted.
    scale
        What the edit is counted under.
    """
    present = [one for one in sets if one is not None]
    if not present:
        return np.full(len(sets), -np.inf)
    task = runner.task
    suppressed = counts.way == SUPPRESS
    length = (-1.0 if suppressed else 1.0) * float(np.median([one.lengths[-1] for one in present]))
    own: list[AddVector | None] = []
    for one in sets:
        # Where pictures are judged, each edits those tokens on which its own latents are active.
        where = (one.latents, one.dictionary) if one and suppressed and task.unit == "picture" else ()
        own.append(AddVector(normalize(one.total, dim=0), *where) if one else None)
    return moved_along(runner, counts, own, length, scale)
