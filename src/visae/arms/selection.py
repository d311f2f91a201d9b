"""What the selection split says: the latents and directions that stand for a class, by the unit of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from visae.arms.dictionaries import LabelledPatches, mean_input, neurons, targets_by_gradient
from visae.arms.targets import Activity
from visae.config.settings import InterventionSettings
from visae.features.codes import read_codes_manifest
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
    def slopes(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Tokens of a class (n, d_model), and the gradient there of its log odds; None without a picture of it."""

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


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
    """Patches and gradients of several batches, one after the other."""
    if not parts:
        return None
    rows, slopes = (torch.cat(values) for values in zip(*parts, strict=True))
    return rows, slopes
