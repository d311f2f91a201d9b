"""Latents and directions of classes of patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import polars as pl
from torch import Tensor

from visae.arms.dictionaries import LabelledPatches, best_latents, labelled_patches
from visae.arms.selection import Selection, labelled_units
from visae.arms.targets import targets_by_f1, targets_by_patches
from visae.features.blocks import codes_by_latents
from visae.features.concepts import BLOCK_CODES, METRICS, Labels, choose
from visae.sae import SparseAutoencoder
from visae.tasks.counts import Target
from visae.tasks.segmentation import Segmentation

# Pictures of the selection split on which a class's gradients are taken.
_GRADIENT_IMAGES = 8


@dataclass
class PatchSelection(Selection[Segmentation]):
    """By the classes of patches.

    Attributes
    ----------
    labels
        Of the patches of the split; class numbers are the task's.
    """

    labels: Labels = field(kw_only=True)
    others: ClassVar[Sequence[str]] = ("auc", "gradient")

    @property
    def by(self) -> str:
        """What the settings say."""
        return self.settings.choose_by

    def targets(self, by: str) -> list[Target]:
        """Latents of each class by `f1`, from scores.parquet, or by `auc` or `gradient`."""
        n_latents = self.settings.latents_per_class
        if by == "f1":
            return self.active(targets_by_f1(self.scores, n_latents))
        if by == "gradient":
            return self.active(self.by_gradient(self.sae, n_latents))

        def blocks() -> Iterator[tuple[range, pl.LazyFrame]]:
            return codes_by_latents(Path(self.codes_manifest), BLOCK_CODES, "patches")

        return self.active(targets_by_patches(blocks, self.sample.labels, self.task.names, by, n_latents))

    def best(self, dictionary: SparseAutoencoder, n_latents: int) -> list[Target]:
        """Latents of a dictionary by their codes of labelled patches."""
        gradients = self.gradients if self.by == "gradient" else {}
        return best_latents(dictionary, self.sample, self.by, n_latents, gradients)

    @cached_property
    def sample(self) -> LabelledPatches:
        """Labelled patches."""
        return labelled_patches(self.task.store, self.labels, self.task.names, self.seed)

    def units(self, number: int, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Patches labelled with the class, of some pictures that have it."""
        return labelled_units(self.task, self.sample.labels, number, most or _GRADIENT_IMAGES, self.seed)

    def scored(self, most: int) -> list[tuple[int, int, float]]:
        """By F1 on labelled patches."""

        def blocks() -> Iterator[tuple[range, pl.LazyFrame]]:
            return codes_by_latents(Path(self.codes_manifest), BLOCK_CODES)

        ids = list(self.task.names)
        found = choose(blocks, self.sample.labels, "f1", most).choices
        pairs = [(ids[choice.class_number], choice.latent, choice.fit[METRICS.index("f1")]) for choice in found]
        return sorted(pairs, key=lambda pair: (-pair[2], *pair[:2]))
