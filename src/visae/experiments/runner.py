"""Runs edits of classes on the measured split, and keeps what they count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.arms.arms import Outcome, Unedited, outcomes
from visae.arms.changes import Draws, situation
from visae.config.interventions import SIZES
from visae.config.settings import InterventionSettings
from visae.edits.edit import patch_rows
from visae.experiments.examples import example_rows
from visae.sae import SparseAutoencoder
from visae.tasks.counts import SUPPRESS, ClassCounts, Target, Way
from visae.tasks.task import Task


@dataclass(frozen=True)
class Batch(Unedited):
    """Some pictures that are edited.

    Attributes
    ----------
    ids, rows
        Their ids, and their places among the pictures of the class.
    target
        Patches that the edit is about, bool (b, n_patches); what is edited may be the class token.
    """

    ids: NDArray[np.int64]
    rows: slice
    target: Tensor


@dataclass
class _Kept:
    """Pictures before any edit, kept where they are few: many edits after each other are of the same ones."""

    most: ClassVar[int] = 64
    ids: bytes = b""
    read: list[tuple[NDArray[np.int64], Tensor]] = field(default_factory=list)
    answers: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    def batches(self, task: Task, ids: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Pictures by id, and their tokens, as `Task.batches` gives them."""
        if len(ids) > self.most:
            self.ids, self.read, self.answers = b"", [], {}
            yield from task.batches(ids)
            return
        if ids.tobytes() != self.ids:
            self.ids, self.read, self.answers = ids.tobytes(), list(task.batches(ids)), {}
        yield from self.read

    def before(self, tokens: Tensor, read: Callable[[Tensor], Tensor], logits: bool) -> Tensor:
        """What is read of tokens, which are kept or not."""
        place = next((place for place, (_, kept) in enumerate(self.read) if kept is tokens), None)
        if place is None:
            return read(tokens)
        if (place, logits) not in self.answers:
            self.answers[place, logits] = read(tokens)
        return self.answers[place, logits]


@dataclass
class Runner:
    """Runs classes one after the other; the task has looked at the measured split.

    Attributes
    ----------
    examples
        Rows of examples.parquet.
    """

    task: Task
    sae: SparseAutoencoder
    settings: InterventionSettings
    seed: int
    examples: list[dict[str, Any]] = field(default_factory=list)
    _kept: _Kept = field(default_factory=_Kept, repr=False)

    def __post_init__(self) -> None:
        self.task.tokens = self.sae.place.tokens  # edits move what the SAE was trained on

    def limit(self, way: Way) -> int | None:
        """Pictures of a class that are edited, at most."""
        if self.task.unit != "patch":
            return self.settings.classification_images
        if way == SUPPRESS:
            return self.settings.images
        return min(self.settings.classification_images, self.settings.images or self.settings.classification_images)

    def pictures(self, target: Target, way: Way) -> ClassCounts:
        """Pictures of a class, nothing counted yet."""
        return self.task.pictures(target, way, self.limit(way), self.seed)

    def sampled(self, target: Target, way: Way) -> ClassCounts:
        """Those on which doses and untrained dictionaries are run."""
        limit = self.limit(way)
        fewer = self.settings.sample if limit is None else min(self.settings.sample, limit)
        return self.task.pictures(target, way, fewer, self.seed)

    @torch.inference_mode()
    def can_be_edited(self, counts: ClassCounts) -> bool:
        """Whether there is a patch to edit in the pictures that the edit is about."""
        start = 0
        for ids, _, _, patches in self._batches(counts):
            own = counts.n_target[start : start + len(ids)] > 0
            if patches[torch.from_numpy(own).to(patches.device)].any():
                return True
            start += len(ids)
        return False

    @torch.inference_mode()
    def run(
        self,
        counts: ClassCounts,
        draws: Draws,
        scales: tuple[float, ...],
        sizes: Sequence[str] = SIZES,
        *,
        everywhere: bool = False,
        watch: Callable[[Outcome, Batch], None] | None = None,
        logits: bool = False,
    ) -> None:
        """Run every arm of one class, and count.

        Parameters
        ----------
        scales, sizes
            As for `outcomes`.
        everywhere
            Latents count as active on every patch, so that draws choose their own patches.
        watch
            Sees every outcome.
        logits
            Whether what `watch` sees before and after an edit are logits, in place of readings of them.
        """
        for batch in self.prepared(counts, draws, everywhere=everywhere, logits=logits):
            self.run_batch(counts, batch, draws, scales, sizes, watch=watch, logits=logits)

    @torch.inference_mode()
    def prepared(
        self, counts: ClassCounts, draws: Draws, *, everywhere: bool = False, logits: bool = False
    ) -> Iterator[Batch]:
        """Pictures of one class as they are before any edit; the parameters are those of `run`."""
        start, read = 0, self.task.logits if logits else self.task.read
        for ids, tokens, target, patches in self._batches(counts, everywhere):
            rows, start = slice(start, start + len(ids)), start + len(ids)
            here = situation(self.sae, patch_rows(tokens, patches), draws)
            yield Batch(tokens, patches, self._kept.before(tokens, read, logits), here, ids, rows, target)

    @torch.inference_mode()
    def run_batch(
        self,
        counts: ClassCounts,
        batch: Batch,
        draws: Draws,
        scales: tuple[float, ...],
        sizes: Sequence[str] = SIZES,
        *,
        watch: Callable[[Outcome, Batch], None] | None = None,
        logits: bool = False,
    ) -> None:
        """Run every arm on one batch of `prepared`, and count; the parameters are those of `run`."""
        read = self.task.logits if logits else self.task.read
        reading = self.task.reading if logits else _as_it_is
        before, rows, batch_size = reading(batch.before), batch.rows, self.settings.batch_size
        for outcome in outcomes(batch, draws, scales, read=read, batch_size=batch_size, sizes=sizes):
            values, becomes = self.task.changes(counts, rows, before, reading(outcome.after), batch.target)
            for scale in outcome.scales:
                counts.add((outcome.arm, outcome.size, scale), rows, values, becomes, outcome.draws)
            if watch is not None:
                watch(outcome, batch)

    def keep_examples(self, counts: ClassCounts) -> Callable[[Outcome, Batch], None]:
        """Return what keeps examples of a class while it runs."""

        def watch(outcome: Outcome, batch: Batch) -> None:
            shown = self.task.shown(counts, batch.ids, batch.rows, batch.patches)
            ids = {place: int(batch.ids[place]) for place in shown}
            self.examples.extend(example_rows(self.task, counts, outcome, ids, batch.before, batch.patches))

        return watch

    def _batches(
        self, counts: ClassCounts, everywhere: bool = False
    ) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor, Tensor]]:
        """Pictures of a class by id, their tokens, the patches that the edit is about, and the tokens to edit."""
        latents = list(counts.target.latents)
        for ids, tokens in self._kept.batches(self.task, self.task.measured[counts.images]):
            rows = tokens[:, self.task.own]

            @cache
            def active(rows: Tensor = rows) -> Tensor:
                if everywhere:
                    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
                return (self.sae.latent_values(rows.flatten(0, 1), latents) > 0).any(dim=1).view(rows.shape[:2])

            patches = self.task.patches(counts, ids, tokens, active)
            yield ids, tokens, patches, self.task.edited(counts, patches, active)


def _as_it_is(reading: Tensor) -> Tensor:
    return reading
