"""What the selection split says: the latents and directions that stand for a class, by the unit of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from visae.arms.dictionaries import LabelledPatches, mean_input, neurons, targets_by_gradient
from visae.arms.targets import Activity
from visae.config.settings import InterventionSettings
from visae.features.codes import read_codes_manifest
from visae.features.concepts import Labels
from visae.features.encoding import encoded_kinds
from visae.sae import SparseAutoencoder
from visae.tasks.counts import Target
from visae.tasks.task import Gradients, Task

AnyTask = TypeVar("AnyTask", bound=Task)


@dataclass
class Selection(ABC, Generic[AnyTask]):
    """All that choosing latents and directions needs; a member says how, for tasks of one unit.

    Attributes
    ----------
    codes_manifest
        The SAE's codes of the task's data set.
    split
        The selection split.
    scores
        scores.parquet of the same codes, or nothing.
    """

    settings: InterventionSettings
    task: AnyTask
    sae: SparseAutoencoder
    codes_manifest: str | Path
    activity: Activity
    split: str
    seed: int
    scores: str | Path = ""

    others: ClassVar[Sequence[str]] = ()
    """Ways of choosing that an arm of their own shows, beside the one that the settings name."""

    @property
    @abstractmethod
    def by(self) -> str:
        """How a class's latents are chosen: what the settings say, as far as the unit has it."""

    @abstractmethod
    def targets(self, by: str) -> list[Target]:
        """Latents of each class, all active on the split; classes without any are left out."""

    @abstractmethod
    def best(self, dictionary: SparseAutoencoder, n_latents: int) -> list[Target]:
        """Latents of any dictionary for each class, chosen in the same way on `sample`."""

    @property
    @abstractmethod
    def sample(self) -> LabelledPatches:
        """Tokens of the split that are held in memory."""

    @abstractmethod
    def units(self, number: int, most: int | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Tokens (b, n_tokens, d_model) of pictures of a class, and which patches are its own, bool (b, n_patches).

        None stands for all patches, of which the answer to the picture is made.

        Parameters
        ----------
        most
            Pictures, drawn; left out, as many as latents are chosen on.
        """

    @abstractmethod
    def scored(self, most: int) -> list[tuple[int, int, float]]:
        """Class id, latent and score of pairs that labels rank, so many a class, the best first."""

    def slopes(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Tokens of a class (n, d_model), and the gradient there of its log odds; None without a picture of it."""
        parts = [own_slopes(self.task, tokens, number, own) for tokens, own in self.units(number)]
        return joined(parts)

    def difference(self, class_id: int) -> Tensor | None:
        """Mean patch of a class minus that of others, (d_model,), on `sample`; None where there are none of either."""
        number = self.task.numbers[class_id]
        own = self.sample.numbers == number
        return self.sample.difference(number, self.sae.decoder_bias.device) if 0 < own.sum() < len(own) else None

    def neuron(self, class_id: int) -> Tensor | None:
        """Direction (d_model,) of the raw neuron that tells the class best, chosen as latents of dictionaries are."""
        latents = self._neurons.get(class_id)
        return None if latents is None else self.neurons().decoder_weight[latents[0]]

    @cached_property
    def _neurons(self) -> dict[int, tuple[int, ...]]:
        return {target.class_id: target.latents for target in self.best(self.neurons(), 1)}

    @cached_property
    def gradients(self) -> Gradients:
        """`slopes` of each class that has pictures, by class number."""
        found = {number: self.slopes(number) for number in range(len(self.task.classes))}
        return {number: slopes for number, slopes in found.items() if slopes is not None}

    @property
    def k(self) -> int:
        """Codes that the SAE gives a token, in the mean."""
        codes = read_codes_manifest(self.codes_manifest)
        tokens = codes["n_images"] * self.task.store.n_tokens(encoded_kinds(self.sae))
        return max(1, round(codes["rows"] / tokens))

    def by_gradient(self, dictionary: SparseAutoencoder, n_latents: int) -> list[Target]:
        """Latents of a dictionary by the gradient of each class's log odds."""
        return targets_by_gradient(dictionary, self.gradients, self.task.names, n_latents)

    def active(self, targets: list[Target]) -> list[Target]:
        """Those of the task's classes all of whose latents are active on the split."""
        names, largest = self.task.names, self.activity.largest
        return [target for target in targets if target.class_id in names and set(target.latents) <= set(largest)]

    def neurons(self) -> SparseAutoencoder:
        """Raw neurons as a dictionary."""
        return neurons(self.sae, self.k, self.middle)

    @property
    def middle(self) -> Tensor:
        """Mean normalized token of `sample`, (d_model,), of which dictionaries without training start."""
        return mean_input(self.sae, self.sample.rows)


class GradientSelection(Selection[AnyTask]):
    """Without labels of what has the codes: latents of each class by the gradient of its log odds alone."""

    others: ClassVar[Sequence[str]] = ()

    @property
    def by(self) -> str:
        """By gradient, whatever the settings say."""
        return "gradient"

    def targets(self, by: str) -> list[Target]:
        """Latents of each class."""
        return self.active(self.by_gradient(self.sae, self.settings.latents_per_class))

    def best(self, dictionary: SparseAutoencoder, n_latents: int) -> list[Target]:
        """Latents of a dictionary."""
        return self.by_gradient(dictionary, n_latents)

    def scored(self, most: int) -> list[tuple[int, int, float]]:
        """Nothing is ranked by labels."""
        return []


def own_slopes(task: Task, tokens: Tensor, number: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens that edits move (n, d_model), of patches a class's own, and the gradient there of a class's log odds."""
    rows, slopes = task.slopes(tokens, number, own)
    if own is None or task.tokens == "class":
        return rows.flatten(0, 1), slopes.flatten(0, 1)
    # The last ones are the patches, whatever else edits move.
    n_patches = own.shape[1]
    return rows[:, -n_patches:][own], slopes[:, -n_patches:][own]


def labelled_units(task: Task, labels: Labels, number: int, most: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens of drawn pictures that have a class, and which patches are labelled with it."""
    having = np.flatnonzero((labels.classes == number).any(axis=1))
    drawn = np.random.default_rng([seed, number, 5]).permutation(having)[:most]
    for batch, tokens in task.batches(np.sort(drawn) + labels.pictures.start):
        yield tokens, torch.from_numpy(labels.classes[batch - labels.pictures.start] == number).to(task.device)


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
    """Patches and gradients of several batches, one after the other."""
    if not parts:
        return None
    rows, slopes = (torch.cat(values) for values in zip(*parts, strict=True))
    return rows, slopes
