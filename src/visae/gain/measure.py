"""Edits of many dictionaries measured side by side on the same pictures, which are held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.arms.changes import Situation
from visae.config.interventions import NATURAL
from visae.experiments.runner import Batch, Runner
from visae.gain.candidates import Chosen
from visae.gain.lengths import half_lengths
from visae.sae import SparseAutoencoder
from visae.tasks.counts import SUPPRESS, ClassCounts, Shares, Target


@dataclass(frozen=True, eq=False)
class Push:
    """Moves each row along a unit vector (d_model,) by a length of its own, (n,)."""

    vector: Tensor
    lengths: Tensor

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """Change (n, d_model), whatever the scale."""
        return self.lengths[:, None] * self.vector


@dataclass(frozen=True)
class Candidate:
    """A dictionary's latent for a class, and what an edit needs to know of it on the measured rows.

    Attributes
    ----------
    moved
        By batch, (n,): 1 where its edit moves a row, else 0.
    natural
        By batch, (n,): how far a row is moved, down its direction, as the latent is set to minus its largest value.
    """

    chosen: Chosen
    moved: Sequence[Tensor]
    natural: Sequence[Tensor]

    def at(self, length: float) -> list[Tensor]:
        """By batch, how far each row is moved where the edit is so long."""
        return [-length * moved for moved in self.moved]

    @property
    def natural_length(self) -> float:
        """Mean length of the natural edit, over the rows that it moves."""
        n_moved = sum(float(moved.sum()) for moved in self.moved)
        return -sum(float(natural.sum(dtype=torch.float64)) for natural in self.natural) / n_moved if n_moved else 0.0


@dataclass
class Held:
    """The measured pictures of a class, ready for edits."""

    runner: Runner
    counts: ClassCounts
    batches: list[Batch]
    done: int = 0

    @classmethod
    def of(cls, runner: Runner, class_id: int, images: int) -> Held | None:
        """Read the pictures of a class; None where there is nothing that could turn."""
        task = runner.task
        counts = task.pictures(Target(class_id, task.names[class_id], (), 0.0), SUPPRESS, images, runner.seed)
        if not len(counts.images):
            return None
        held = cls(runner, counts, list(runner.prepared(counts, {}, everywhere=True)))
        return held if any(len(batch.here.rows) for batch in held.batches) else None

    @torch.inference_mode()
    def candidates(self, dictionary: SparseAutoencoder, chosen: Sequence[Chosen]) -> list[Candidate]:
        """What edits of some latents of a dictionary are; it is encoded with once for all of them."""
        columns: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in chosen]
        where_active = self.runner.task.unit == "picture"
        for batch in self.batches:
            rows = batch.here.rows
            values = dictionary.latent_values(rows, [one.latent for one in chosen])
            for column, (one, (moved, natural)) in enumerate(zip(chosen, columns, strict=True)):
                old = values[:, column]
                # Where patches are not those of the class, each dictionary edits those on which its own latent is.
                here = (old > 0).to(rows.dtype) if where_active else torch.ones_like(old)
                unit = dictionary.change(torch.ones_like(old)[:, None], [one.latent], like=rows).norm(dim=1)
                moved.append(here)
                natural.append((-one.largest - old) * unit * here)
        return [Candidate(one, *column) for one, column in zip(chosen, columns, strict=True)]

    def edited(self, edits: Mapping[str, tuple[Tensor, Sequence[Tensor]]]) -> dict[str, Shares]:
        """Measure edits: unit vector, and by batch how far along it each row is moved; shares by name."""
        key, task = float(self.done), self.runner.task
        self.done += 1
        for place, batch in enumerate(self.batches):
            draws = {name: [Push(vector, lengths[place])] for name, (vector, lengths) in edits.items()}
            self.runner.run_batch(self.counts, batch, draws, (key,), (NATURAL,))
        return {name: task.shares(SUPPRESS, task.sums(self.counts, (name, NATURAL, key))) for name in edits}

    def at(self, candidates: Mapping[str, Candidate], lengths: Mapping[str, float]) -> dict[str, Shares]:
        """Measure candidates whose edit has a length."""
        return self.edited(
            {name: (candidates[name].chosen.vector, candidates[name].at(lengths[name])) for name in lengths}
        )

    def halves(self, candidates: Mapping[str, Candidate], lengths: Sequence[float]) -> dict[str, float]:
        """Length at which half of the targets turn, by name; see `half_lengths`."""

        def turned(asked: Mapping[str, float]) -> dict[str, float]:
            found = {name: float(share["target_change"]) for name, share in self.at(candidates, asked).items()}
            self.forget()
            return found

        return half_lengths(turned, list(candidates), lengths)

    def resampled_turns(
        self, candidate: Candidate, lengths: Sequence[float], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of the targets that turn at each length, by resample of pictures, (resamples, len(lengths))."""
        names = [str(number) for number in range(len(lengths))]
        key, task = float(self.done), self.runner.task
        self.at(dict.fromkeys(names, candidate), dict(zip(names, lengths, strict=True)))
        found = [
            task.shares(SUPPRESS, task.sums(self.counts, (name, NATURAL, key), weights))["target_change"]
            for name in names
        ]
        self.forget()
        return np.stack(found, axis=1)

    def forget(self) -> None:
        """Give back what has been counted."""
        self.counts.edits.clear()
