"""Latents and directions of classes of outputs: no row has a label, so that the readout's own gradients choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.arms.dictionaries import MOST_PATCHES, LabelledPatches
from visae.arms.selection import GradientSelection
from visae.features.concepts import Labels
from visae.tasks.readout import Readout


@dataclass
class RowSelection(GradientSelection[Readout]):
    """By the gradient of the log odds of a class's outputs, on rows of the split or MOST_PATCHES drawn ones."""

    @cached_property
    def _drawn(self) -> list[tuple[NDArray[np.int64], Tensor]]:
        """Drawn rows of the split by id, and their tokens: so many that they fit into memory."""
        images, n_tokens = self.task.store.image_ids(self.split), self.task.store.n_tokens(self.task.tokens)
        order = np.random.default_rng([self.seed, 8]).permutation(images)
        return list(self.task.batches(np.sort(order[: max(1, MOST_PATCHES // n_tokens)])))

    @cached_property
    def sample(self) -> LabelledPatches:
        """The drawn rows; each counts as of the class whose output comes first in it."""
        images = self.task.store.image_ids(self.split)
        kept = np.full((len(images), self.task.store.n_tokens(self.task.tokens)), -1, dtype=np.int16)
        for ids, tokens in self._drawn:
            first = self.task.listed(self.task.read(tokens))[:, 0]
            kept[ids - images.start] = self.task.of_class[first].cpu().numpy()[:, None]
        rows = torch.cat([tokens[:, self.task.own].flatten(0, 1) for _, tokens in self._drawn])
        picture, token = np.nonzero(kept >= 0)
        labels = Labels(images, kept, len(self.task.classes))
        return LabelledPatches(rows, picture, token, labels, self.task.names)

    def units(self, number: int, most: int | None = None) -> Iterator[tuple[Tensor, None]]:
        """All drawn rows, whatever the class."""
        left = len(self.task.store.image_ids(self.split)) if most is None else most
        for _, tokens in self._drawn:
            if left > 0:
                yield tokens[:left].clone(), None
            left -= len(tokens)
