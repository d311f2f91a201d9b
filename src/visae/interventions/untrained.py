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

from visae.features.resampling import benjamini_hochberg, p_value
from visae.interventions.counts import ClassCounts
from visae.interventions.dictionaries import Gradients, LabelledPatches, best_latents
from visae.interventions.edits import with_rows
from visae.interventions.passes import in_shared_batches
from visae.interventions.segmenting import Segmenter
from visae.sae import SparseAutoencoder

_CHUNK = 8192


def chosen_directions(
    sae: SparseAutoencoder, patches: LabelledPatches, by: str, n_latents: int, gradients: Gradients
) -> dict[int, Tensor]:
    """Unit direction (d_model,) of the latents that a dictionary has for each class, summed, by class id."""
    found = best_latents(sae, patches, by, n_latents, gradients)
    rows = normalize(sae.decoder_weight)
    return {target.class_id: normalize(rows[list(target.latents)].sum(dim=0), dim=0) for target in found}


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


@torch.inference_mode()
def selectivities(
    segmenter: Segmenter, counts: ClassCounts, images: range, seen: NDArray[np.int16], changes: Sequence[Tensor | None]
) -> NDArray[np.float64]:
    """Selectivity of adding each of several vectors (d_model,) to a class's patches, (len(changes),).

    A dictionary that found no latent for the class (None) is the least selective of all.
    """
    channel, n_prefix = segmenter.ids.index(counts.target.class_id), segmenter.model.card.n_prefix
    target, other = np.zeros((2, len(changes)))
    for ids, tokens in segmenter.batches(images.start + counts.images):
        before = torch.from_numpy(seen[ids - images.start]).to(tokens.device, torch.int64)
        patches = before == channel
        rows = tokens[:, n_prefix:][patches]
        edited = (tokens[:0] if c is None else with_rows(tokens, patches, rows + c) for c in changes)
        for number, after in enumerate(in_shared_batches(edited, lambda x, _: segmenter.read(x), segmenter.batch_size)):
            if len(after):
                changed = after != before
                target[number] += int((changed & patches).sum())
                other[number] += int((changed & ~patches).sum())
    found = target / counts.n_target.sum() - other / max(counts.n_other.sum(), 1)
    return np.where([change is None for change in changes], -np.inf, found)


def dictionaries_compared(
    segmenter: Segmenter,
    classes: Sequence[ClassCounts],
    images: range,
    seen: NDArray[np.int16],
    directions: Sequence[dict[int, Tensor]],
    patches: LabelledPatches,
    scale: float,
) -> dict[int, NDArray[np.float64]]:
    """Selectivity of every dictionary, the tested one first, for each class for which that one has latents.

    Parameters
    ----------
    classes
        Pictures and patches of each class; nothing is added to their counts.
    directions
        Of each dictionary, by class id.
    scale
        Of the edit: its sign says which way patches are moved; 0 counts as -1.
    """
    scale = scale or -1.0
    found = {}
    for counts in classes:
        own = [of_class.get(counts.target.class_id) for of_class in directions]
        if own[0] is None or not len(counts.images):
            continue
        length = common_length(torch.stack([v for v in own if v is not None]), patches, scale)
        changes = [None if v is None else float(np.sign(scale)) * length * v for v in own]
        found[counts.target.class_id] = selectivities(segmenter, counts, images, seen, changes)
    return found


def rank_tests(found: dict[int, NDArray[np.float64]]) -> dict[int, dict[str, float]]:
    """`p_untrained` of each class, its rank among all dictionaries, and `q_untrained`, corrected for the classes."""
    p = np.array([p_value(values[0], values[1:]) for values in found.values()], dtype=np.float64)
    q = benjamini_hochberg(p)
    return {
        class_id: {"p_untrained": float(one), "q_untrained": float(rate)}
        for class_id, one, rate in zip(found, p, q, strict=True)
    }
