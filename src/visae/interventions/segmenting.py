"""A frozen network with a segmentation head, and what it predicts on a split before any edit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.features.concepts import Labels
from visae.heads.segmentation_head import SegmentationHead
from visae.interventions.counts import ClassCounts, EditCounts
from visae.interventions.dictionaries import Gradients
from visae.interventions.targets import Target
from visae.vision.model import VisionModel

# Pictures of the selection split on which a class's gradients are taken.
_GRADIENT_IMAGES = 8


class Segmenter:
    """Reads predictions from tokens of one layer.

    Parameters
    ----------
    labels
        Head's channel of each patch by picture; below 0 where it has none.
    """

    def __init__(
        self,
        model: VisionModel,
        layer: int,
        head: SegmentationHead,
        store: ActivationStore,
        labels: dict[int, Tensor],
        batch_size: int,
    ) -> None:
        self.model, self.layer, self.head, self.store = model, layer, head, store
        self.labels, self.batch_size = labels, batch_size
        self.ids = [c["id"] for c in head.classes]
        self.device = head.weight.device

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits (b, n_classes, n_patches); differentiable in tokens."""
        return self.head(self.model.resume(tokens, self.layer)).flatten(2)

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """Predicted channel of each patch (b, n_patches)."""
        return self.logits(tokens).argmax(dim=1)

    def batches(self, image_ids: NDArray[np.integer]) -> Iterator[tuple[NDArray[np.integer], Tensor]]:
        """Pictures by id, and their tokens (b, n_tokens, d_model)."""
        for start in range(0, len(image_ids), self.batch_size):
            batch = image_ids[start : start + self.batch_size]
            tokens = torch.cat([self.store.read(range(int(i), int(i) + 1), "all") for i in batch])
            yield batch, tokens.to(self.device)

    def predictions(self, images: range) -> NDArray[np.int16]:
        """Predicted channel of each patch of consecutive pictures, (n_images, n_patches)."""
        parts = [self.read(tokens).cpu().numpy() for _, tokens in self.batches(np.array(images))]
        return np.concatenate(parts).astype(np.int16)

    def truth(self, image_ids: NDArray[np.integer]) -> NDArray[np.int16]:
        """Labelled channel of each patch, (n, n_patches), below 0 where there is none."""
        unlabelled = torch.full((self.model.card.layers[self.layer].n_patches,), -1, dtype=torch.int16)
        return torch.stack([self.labels.get(int(i), unlabelled) for i in image_ids]).numpy()

    def gradients(self, labels: Labels, seed: int) -> Gradients:
        """Patches of each class, and the gradient there of the class's log odds on them.

        Odds, as a logit alone says nothing: the same number added to all changes no prediction. Of the selection
        split's pictures that have the class, some are drawn.
        """
        found = {}
        for number in range(labels.n_classes):
            pictures = np.flatnonzero((labels.classes == number).any(axis=1))
            drawn = np.random.default_rng([seed, number, 5]).permutation(pictures)[:_GRADIENT_IMAGES]
            parts = []
            for batch, tokens in self.batches(np.sort(drawn) + labels.pictures.start):
                own = torch.from_numpy(labels.classes[batch - labels.pictures.start] == number).to(self.device)
                tokens.requires_grad_(True)
                logits = self.logits(tokens)
                others = [channel for channel in range(logits.shape[1]) if channel != number]
                odds = logits[:, number] - logits[:, others].logsumexp(dim=1)
                (slopes,) = torch.autograd.grad(odds[own].sum(), tokens)
                n_prefix = self.model.card.n_prefix
                parts.append((tokens.detach()[:, n_prefix:][own], slopes[:, n_prefix:][own]))
            if parts:
                rows, slopes = (torch.cat(values) for values in zip(*parts, strict=True))
                found[number] = (rows, slopes)
        return found


def counted(
    segmenter: Segmenter, target: Target, images: range, seen: NDArray[np.int16], limit: int | None, seed: int
) -> tuple[ClassCounts, int]:
    """Pictures of a class to edit, nothing counted yet, and how many have the class but no patch predicted as it.

    Parameters
    ----------
    images, seen
        The measured split, and its unedited predictions.
    limit
        Pictures at most; more are drawn from.
    """
    channel = segmenter.ids.index(target.class_id)
    truth = segmenter.truth(np.array(images))
    occurs, predicted = (truth == channel).any(axis=1), (seen == channel).any(axis=1)
    rows = np.flatnonzero(occurs & predicted)
    if limit is not None:
        rows = np.sort(np.random.default_rng([seed, target.class_id, 6]).permutation(rows)[:limit])
    n_target = (seen[rows] == channel).sum(axis=1)
    by_class = (truth[rows][:, :, None] == np.arange(len(segmenter.ids))).sum(axis=1)
    n_other = seen.shape[1] - n_target
    return ClassCounts(target, rows, n_target, n_other, by_class), int((occurs & ~predicted).sum())


def add_outcome(
    counts: EditCounts, rows: slice, before: Tensor, after: Tensor, patches: Tensor, truth: Tensor, draws: int
) -> None:
    """Count one draw on a batch: predictions before and after (b, n_patches), which patches were edited, the truth."""
    n_channels = len(counts.becomes)
    changed = after != before
    counts.target[rows] += (changed & patches).sum(dim=1).cpu().numpy() / draws
    counts.other[rows] += (changed & ~patches).sum(dim=1).cpu().numpy() / draws
    counts.becomes += torch.bincount(after[patches], minlength=n_channels).cpu().numpy() / draws
    labelled = truth >= 0
    for values, chosen in ((counts.predicted, labelled), (counts.hits, after == truth)):
        per_class = torch.zeros(len(after), n_channels + 1, device=after.device)
        where = torch.where(chosen, after, n_channels)
        per_class.scatter_add_(1, where, torch.ones_like(where, dtype=per_class.dtype))
        values[rows] += per_class[:, :-1].cpu().numpy() / draws
