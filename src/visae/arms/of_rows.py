"""Latents and directions of classes of outputs: no row has a label, so that the readout's own gradients choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from torch import Tensor

from visae.arms.dictionaries import LabelledPatches, labelled_patches
from visae.arms.selection import Selection, joined
from visae.features.concepts import Labels
from visae.sae import SparseAutoencoder
from visae.tasks.counts import Target
from visae.tasks.readout import Readout

_MOST_ROWS = 16_384


@dataclass
class RowSelection(Selection[Readout]):
    """By the gradient of the log odds of a class's outputs, on rows of the split or so many drawn ones."""

    others: ClassVar[Sequence[str]] = ()

    @property
    def by(self) -> str:
        """By gradient: there are no labels."""
        return "gradient"

    def targets(self, by: str) -> list[Target]:
        """Latents of each class."""
        return self.active(self.by_gradient(self.sae, self.settings.latents_per_class))

    def best(self, dictionary: SparseAutoencoder, n_latents: int) -> list[Target]:
        """Latents of a dictionary."""
        return self.by_gradient(dictionary, n_latents)

    @cached_property
    def sample(self) -> LabelledPatches:
        """The drawn rows; each counts as of the class whose output comes first in it."""
        images = self.task.store.image_ids(self.split)
        drawn = np.sort(np.random.default_rng([self.seed, 8]).permutation(images)[:_MOST_ROWS])
        kept = np.full((len(images), self.task.store.n_tokens("patches")), -1, dtype=np.int16)
        for ids, tokens in self.task.batches(drawn):
            first = self.task.listed(self.task.read(tokens))[:, 0]
            kept[ids - images.start] = self.task.of_class[first].cpu().numpy()[:, None]
        labels = Labels(images, kept, len(self.task.classes))
        return labelled_patches(self.task.store, labels, self.task.names, self.seed)

    def slopes(self, number: int) -> tuple[Tensor, Tensor] | None:
        """On all drawn rows."""
        ids = self.sample.labels.pictures.start + np.flatnonzero((self.sample.labels.classes >= 0).any(axis=1))
        parts = []
        for _, tokens in self.task.batches(ids):
            rows, slopes = self.task.slopes(tokens, number)
            parts.append((rows.flatten(0, 1), slopes.flatten(0, 1)))
        return joined(parts)

    def difference(self, class_id: int) -> Tensor | None:
        """Between rows in which an output of the class comes first, and others."""
        number = self.task.numbers[class_id]
        own = self.sample.numbers == number
        return self.sample.difference(number, self.sae.mean.device) if 0 < own.sum() < len(own) else None

    def neuron(self, class_id: int) -> Tensor | None:
        """By gradient, as latents are."""
        latents = self._neurons.get(class_id)
        return None if latents is None else self.neurons().decoder_weight[latents[0]]

    @cached_property
    def _neurons(self) -> dict[int, tuple[int, ...]]:
        return {target.class_id: target.latents for target in self.best(self.neurons(), 1)}
