"""Latents and directions of classes of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.activations.store import ActivationStore, Kinds
from visae.arms.dictionaries import MOST_PATCHES, LabelledPatches, codes_of, labelled_patches
from visae.arms.selection import Selection
from visae.arms.targets import image_aucs, targets_by_auc
from visae.errors import DataError
from visae.features.codes import scan_codes
from visae.features.concepts import Labels
from visae.sae import SparseAutoencoder
from visae.tasks.counts import Target
from visae.tasks.pictures import PictureTask

# Pictures of a class on which its gradients are taken, and of all classes on which neurons are compared.
_GRADIENT_IMAGES = 4
_MOST_IMAGES = 4096


@dataclass
class PictureSelection(Selection[PictureTask]):
    """By the classes of pictures: a latent's value in a picture is its largest there."""

    others: ClassVar[Sequence[str]] = ("gradient",)

    @property
    def by(self) -> str:
        """By gradient where the settings say so; else by AUC, as F1 needs the classes of patches."""
        return "gradient" if self.settings.choose_by == "gradient" else "auc"

    @cached_property
    def labels(self) -> dict[int, int]:
        """Class id of each labelled picture of the split."""
        return {i: self.task.labels[i] for i in self.task.store.image_ids(self.split) if i in self.task.labels}

    def targets(self, by: str) -> list[Target]:
        """Latents of each class by `auc` or `gradient`."""
        n_latents = self.settings.latents_per_class
        if by == "gradient":
            return self.active(self.by_gradient(self.sae, n_latents))
        found = self.active(targets_by_auc(scan_codes(self.codes_manifest), self.labels, self.task.names, n_latents))
        if not found:
            raise DataError(
                f"{self.codes_manifest}: no latent is active on split {self.split!r}; train the SAE for longer"
            )
        return found

    def best(self, dictionary: SparseAutoencoder, n_latents: int) -> list[Target]:
        """Latents of a dictionary by their codes of some pictures."""
        if self.by == "gradient":
            return self.by_gradient(dictionary, n_latents)
        return targets_by_auc(codes_of(dictionary, self.sample).lazy(), self.labels, self.task.names, n_latents)

    @cached_property
    def sample(self) -> LabelledPatches:
        """All tokens of labelled pictures, or of so many of them that there are MOST_PATCHES."""
        return pictures_as_patches(
            self.task.store, self.split, self.labels, self.task.names, self.seed, self.task.tokens
        )

    def units(self, number: int, most: int | None = None) -> Iterator[tuple[Tensor, None]]:
        """All tokens of some pictures of the class."""
        for _, tokens in self.task.batches(sorted(self._by_class.get(number, [])[: most or _GRADIENT_IMAGES])):
            yield tokens, None

    def scored(self, most: int) -> list[tuple[int, int, float]]:
        """By the area under the ROC curve of each latent's largest value in a picture."""
        found = image_aucs(scan_codes(self.codes_manifest), self.labels)
        found = found.sort("auc", "class_id", "latent", descending=[True, False, False])
        known = list(self.task.names)
        found = found.filter(pl.col("class_id").is_in(known)).group_by("class_id", maintain_order=True).head(most)
        found = found.sort("auc", "class_id", "latent", descending=[True, False, False])
        return list(found.select("class_id", "latent", "auc").iter_rows())

    def difference(self, class_id: int) -> Tensor | None:
        """Between mean patches of pictures."""
        return self._pooled.difference(class_id) if self._pooled.tells_apart(class_id) else None

    def neuron(self, class_id: int) -> Tensor | None:
        """By its largest value in a picture."""
        return self._pooled.neuron(class_id) if self._pooled.tells_apart(class_id) else None

    @cached_property
    def _pooled(self) -> _Pooled:
        return _Pooled(self.task.store, self.labels, self.seed, self.task.tokens)

    @cached_property
    def _by_class(self) -> dict[int, list[int]]:
        """Pictures of each class number in a drawn order."""
        drawn: dict[int, list[int]] = {}
        for image_id in np.random.default_rng([self.seed, 5]).permutation(sorted(self.labels)).tolist():
            if self.labels[image_id] in self.task.numbers:
                drawn.setdefault(self.task.numbers[self.labels[image_id]], []).append(image_id)
        return drawn


def pictures_as_patches(
    store: ActivationStore,
    split: str,
    labels: Mapping[int, int],
    names: Mapping[int, str],
    seed: int,
    kinds: Kinds = "patches",
) -> LabelledPatches:
    """All tokens of a kind of a split's labelled pictures, or of so many drawn ones that there are MOST_PATCHES."""
    images, n_patches = store.image_ids(split), store.n_tokens(kinds)
    order = np.random.default_rng([seed, 8]).permutation([i for i in images if i in labels])
    kept = np.full((len(images), n_patches), -1, dtype=np.int16)
    numbers = {class_id: number for number, class_id in enumerate(names)}
    for image_id in order[: max(1, MOST_PATCHES // n_patches)].tolist():
        kept[image_id - images.start] = numbers.get(labels[image_id], -1)
    return labelled_patches(store, Labels(images, kept, len(names)), names, seed, kinds)


class _Pooled:
    """Sum and extremes over the tokens of each picture of the selection split, or of so many of them at random."""

    def __init__(self, store: ActivationStore, labels: Mapping[int, int], seed: int, kinds: Kinds) -> None:
        from scipy.stats import rankdata  # half a second, for this alone

        drawn = np.random.default_rng([seed, 4]).permutation(sorted(labels))[:_MOST_IMAGES]
        means, peaks = [], []
        for patches in store.each(sorted(drawn.tolist()), kinds):
            means.append(patches.mean(dim=0))
            peaks.append(torch.cat([patches.amax(dim=0), -patches.amin(dim=0)]))
        self.labels = np.array([labels[image_id] for image_id in sorted(drawn.tolist())])
        self.means = torch.stack(means)
        # Average ranks, (n_images, 2 d_model): a picture's value is its largest, as a latent's is.
        self.ranks: NDArray[np.float64] = rankdata(torch.stack(peaks).numpy(), axis=0)

    def tells_apart(self, class_id: int) -> bool:
        """Whether there are pictures of the class and of others."""
        own = self.labels == class_id
        return bool(own.any() and not own.all())

    def difference(self, class_id: int) -> Tensor:
        """Mean patch of the class minus that of all others, (d_model,)."""
        own = torch.from_numpy(self.labels == class_id)
        return self.means[own].mean(dim=0) - self.means[~own].mean(dim=0)

    def neuron(self, class_id: int) -> Tensor:
        """Unit vector (d_model,) of the dimension, up or down, that tells pictures of the class best."""
        best = int(self.ranks[self.labels == class_id].mean(axis=0).argmax())
        d_model = self.means.shape[1]
        unit = torch.zeros(d_model)
        unit[best % d_model] = 1.0 if best < d_model else -1.0
        return unit
