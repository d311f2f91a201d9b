"""Latents and directions of class tokens for classes of patches: by gradients, as a class token has no class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from visae.arms.dictionaries import MOST_PATCHES, LabelledPatches
from visae.arms.selection import GradientSelection, labelled_units
from visae.features.concepts import Labels
from visae.tasks.segmentation import Segmentation

# Pictures of the selection split on which a class's gradients are taken.
_GRADIENT_IMAGES = 32


@dataclass
class ClassTokenSelection(GradientSelection[Segmentation]):
    """By the gradient of the log odds of a class on its patches, at the class token of pictures that have it.

    Attributes
    ----------
    labels
        Of the patches of the split; class numbers are the task's.
    """

    labels: Labels = field(kw_only=True)

    @cached_property
    def sample(self) -> LabelledPatches:
        """Class tokens of the split, or MOST_PATCHES drawn ones, each of the class that most of its patches have."""
        pictures = self.labels.pictures
        drawn = np.sort(np.random.default_rng([self.seed, 4]).permutation(len(pictures))[:MOST_PATCHES])
        counts = np.stack([(self.labels.classes == number).sum(axis=1) for number in range(self.labels.n_classes)], 1)
        own = np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
        kept = np.full((len(pictures), 1), -1, dtype=np.int16)
        kept[drawn, 0] = own[drawn]
        picture = np.flatnonzero(kept[:, 0] >= 0)
        parts = [tokens[:, 0].cpu() for _, tokens in self.task.batches(picture + pictures.start)]
        rows = torch.cat(parts) if parts else torch.empty(0, self.task.store.d_model)
        labels = Labels(pictures, kept, self.labels.n_classes)
        return LabelledPatches(rows, picture, np.zeros_like(picture), labels, self.task.names)

    def difference(self, class_id: int) -> Tensor | None:
        """Mean class token of pictures that have a class minus that of all others; None where there are none."""
        having = self._having(self.task.numbers[class_id])[self.sample.picture]
        if not 0 < having.sum() < len(having):
            return None
        own, rows = torch.from_numpy(having), self.sample.rows.to(self.task.device, torch.float32)
        return rows[own].mean(dim=0) - rows[~own].mean(dim=0)

    def units(self, number: int, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Patches labelled with the class, of some pictures that have it."""
        return labelled_units(self.task, self.labels, number, most or _GRADIENT_IMAGES, self.seed)

    def _having(self, number: int) -> np.ndarray:
        """Whether each picture of the split has a class, bool (n_pictures,)."""
        return (self.labels.classes == number).any(axis=1)
