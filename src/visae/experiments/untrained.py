"""Whether a class's latents do more than latents chosen in the same way from dictionaries that never learned.

Comparing one latent with other single directions cannot say so: of two arbitrary directions one does more than the
other, however many pictures are looked at, and the best of thousands does more than a random one. So the tested
dictionary stands beside n untrained ones, as wide, with as many codes a token, whose directions are drawn evenly from
the sphere. All choose their latents by the same rule on the same patches of the selection split; all then move the
same patches along the chosen direction by the same length. The p-value is the tested one's rank among all n + 1.

Why that is right: nothing in it treats the tested dictionary in another way than the untrained ones. If it is untrained
itself, all n + 1 are drawn alike, each is as likely as the others to come first, and p is at most 0.05 in at most
5 % of cases. The length has to be common for that reason: it is the longest natural one of all n + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from visae.arms.changes import AddVector
from visae.arms.dictionaries import LabelledPatches, untrained_dictionaries
from visae.arms.selection import Selection
from visae.config.interventions import NATURAL
from visae.experiments.runner import Runner
from visae.features.resampling import benjamini_hochberg, p_value
from visae.progress import progress_bar
from visae.sae import SparseAutoencoder
from visae.tasks.counts import SUPPRESS, ClassCounts

_CHUNK = 8192


def against_untrained(
    runner: Runner, selection: Selection, classes: Sequence[ClassCounts]
) -> dict[int, NDArray[np.float64]]:
    """Effect of each class's latents and of those of every untrained dictionary, by class id, the tested one first.

    Parameters
    ----------
    classes
        Those that were measured.
    """
    settings = runner.settings
    if not settings.untrained or not classes:
        return {}
    chosen = [directions_of(selection, runner.sae)]
    with progress_bar(settings.untrained, "untrained dictionaries", "dictionaries") as bar:
        for other in untrained_dictionaries(runner.sae, selection.k, settings.untrained, runner.seed, selection.middle):
            chosen.append(directions_of(selection, other))
            bar.update()
    return dictionaries_compared(runner, selection, classes, chosen, max(settings.scales, key=abs))


def dictionaries_compared(
    runner: Runner,
    selection: Selection,
    classes: Sequence[ClassCounts],
    directions: Sequence[dict[int, AddVector]],
    scale: float,
) -> dict[int, NDArray[np.float64]]:
    """Effect of every dictionary, the tested one first, for each class for which that one has latents.

    Parameters
    ----------
    directions
        Of each dictionary, by class id.
    scale
        Of the edit: its sign says which way patches are moved; 0 counts as -1.
    """
    found = {}
    with progress_bar(len(classes), "beside untrained dictionaries", "classes") as bar:
        for counts in classes:
            own = [of_class.get(counts.target.class_id) for of_class in directions]
            if own[0] is not None:
                found[counts.target.class_id] = _effects(runner, selection, counts, own, scale or -1.0)
            bar.update()
    return found


def directions_of(selection: Selection, dictionary: SparseAutoencoder) -> dict[int, AddVector]:
    """Unit direction of the latents that a dictionary has for each class, summed, by class id."""
    rows = normalize(dictionary.raw_rows())
    found = {}
    for target in selection.best(dictionary, selection.settings.latents_per_class):
        vector = normalize(rows[list(target.latents)].sum(dim=0), dim=0)
        # Where patches are not those of the class, each dictionary edits those on which its own latents are active.
        where = (target.latents, dictionary) if selection.task.unit == "picture" else ()
        found[target.class_id] = AddVector(vector, *where)
    return found


def _effects(
    runner: Runner, selection: Selection, counts: ClassCounts, own: Sequence[AddVector | None], scale: float
) -> NDArray[np.float64]:
    """Effect of each dictionary on a class, (len(own),)."""
    measured = runner.sampled(counts.target, SUPPRESS)
    length = common_length(torch.stack([change.vector for change in own if change]), selection.sample, scale)
    return moved_along(runner, measured, own, float(np.sign(scale)) * length, scale)


def moved_along(
    runner: Runner, measured: ClassCounts, own: Sequence[AddVector | None], length: float, scale: float
) -> NDArray[np.float64]:
    """Effect of moving tokens along each dictionary's unit vector, (len(own),).

    Parameters
    ----------
    own
        One without a vector is the last of all: its effect is minus infinity.
    measured
        Pictures of a class, suppressed or inserted.
    length
        How far, with a sign.
    scale
        What the edit is counted under.
    """
    task = runner.task
    draws = {
        str(number): [AddVector(length * change.vector, change.latents, change.dictionary)]
        for number, change in enumerate(own)
        if change
    }
    runner.run(measured, draws, (scale,), (NATURAL,), everywhere=True)
    effect = task.effect[measured.way]
    found = np.full(len(own), -np.inf)
    for name in draws:
        found[int(name)] = task.shares(measured.way, task.sums(measured, (name, NATURAL, scale)))[effect]
    return found


def common_length(vectors: Tensor, patches: LabelledPatches, scale: float) -> float:
    """How far `scale` times its largest coordinate on the labelled patches is, of the direction where that is most.

    Coordinates of vectors (m, d_model) are counted from the mean of the patches.
    """
    largest = torch.full((len(vectors),), -torch.inf, device=vectors.device)
    total = torch.zeros(len(vectors), dtype=torch.float64, device=vectors.device)
    for part in patches.rows.split(_CHUNK):
        along = part.to(vectors.device, torch.float32) @ vectors.T
        largest, total = torch.maximum(largest, along.amax(dim=0)), total + along.sum(dim=0, dtype=torch.float64)
    return abs(scale) * float((largest - total / len(patches.rows)).max())


def rank_tests(found: dict[int, NDArray[np.float64]]) -> dict[int, dict[str, float]]:
    """`p_untrained` of each class, its rank among all dictionaries, and `q_untrained`, corrected for the classes."""
    p = np.array([p_value(values[0], values[1:]) for values in found.values()], dtype=np.float64)
    q = benjamini_hochberg(p)
    return {
        class_id: {"p_untrained": float(one), "q_untrained": float(rate)}
        for class_id, one, rate in zip(found, p, q, strict=True)
    }
