"""The door to every task: a frozen network from one layer on, a readout, its units, and how an outcome is counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.config.kinds import TokenKinds
from visae.config.tasks import TASKS, Unit
from visae.tasks.counts import COMMON, INSERT, SUPPRESS, ClassCounts, Key, Shares, Target, Way

Gradients = Mapping[int, tuple[Tensor, Tensor]]
"""By class number: tokens (n, d_model), and the gradients there of the class's log odds."""

Sums = dict[str, NDArray[np.float64]]
"""What is counted, summed over pictures: (...,) or (..., k), with one row a resample before."""


Resumed = Callable[[Tensor], Tensor]
"""A network after a layer: final tokens (b, n_tokens, d_final) of tokens (b, n_tokens, d_model); differentiable."""


class Judge(Protocol):
    """Judges the answers to whole pictures under several replacements of their patches."""

    @property
    def n_images(self) -> int:
        """Pictures that are judged."""

    def __contains__(self, image_id: int) -> bool:
        """Whether the picture can be judged."""

    def add(self, image_ids: list[int], final: dict[str, Tensor]) -> None:
        """Judge pictures by their final tokens (b, n_tokens, d_final) under each replacement."""

    def measures(self) -> Callable[[NDArray], dict[str, NDArray]]:
        """Measures by `{measure} {replacement}`, as a function of weights (r, n_images)."""


class Task(ABC):
    """What a readout says of tokens of one layer, and what edits do to that.

    A member sets the class attributes and writes what is abstract; it is named in `visae.config.tasks`.

    Parameters
    ----------
    resume
        The network after the layer.
    store
        Activations of the layer.
    n_prefix
        Tokens before the patches.
    grid
        Patches down and across.
    classes, not_learned
        {"id", "name"} in the order of the readout's answers, and of those that it cannot give.

    Attributes
    ----------
    tokens
        Kind of tokens that edits move: those that the SAE was trained on. What is answered and counted is the same.
    """

    name: ClassVar[str]
    added: ClassVar[tuple[str, ...]] = ()
    """Measures beside COMMON, which come last in tables."""
    effect: ClassVar[Mapping[Way, str]] = {SUPPRESS: "selectivity", INSERT: "selectivity"}
    """The measure of which paired tests and ranks among dictionaries are made."""
    moves: ClassVar[str] = "target_change"
    """The measure of how far an edit moves what it is about."""
    spills: ClassVar[str] = "other_change"
    """The measure of what it does to the rest."""

    def __init__(
        self,
        resume: Resumed,
        store: ActivationStore,
        n_prefix: int,
        grid: tuple[int, int],
        classes: Sequence[dict[str, Any]],
        not_learned: Sequence[dict[str, Any]] = (),
        batch_size: int = 32,
    ) -> None:
        self.resume, self.store, self.n_prefix, self.grid = resume, store, n_prefix, grid
        self.classes, self.not_learned, self.batch_size = list(classes), list(not_learned), batch_size
        self.names = {c["id"]: c["name"] for c in self.classes}
        self.numbers = {c["id"]: number for number, c in enumerate(self.classes)}
        self.device, self.tokens = torch.device("cpu"), cast(TokenKinds, "patches")
        self.images, self.measured = range(0), np.empty(0, dtype=np.int64)

    # --- the network and its answers ---

    @abstractmethod
    def answers(self, final: Tensor) -> Tensor:
        """Logits (b, n_classes, ...) of final tokens (b, n_tokens, d_final); differentiable."""

    @abstractmethod
    def reading(self, logits: Tensor) -> Tensor:
        """What is compared before and after an edit, (b, ...)."""

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits (b, n_classes, ...) of tokens (b, n_tokens, d_model) of the layer; differentiable."""
        return self.answers(self.resume(tokens))

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """`reading` of tokens (b, n_tokens, d_model)."""
        return self.reading(self.logits(tokens))

    def log_odds(self, logits: Tensor, number: int) -> Tensor:
        """Log odds of a class against all others, (b, ...); a logit alone says nothing, as all can rise together."""
        others = [other for other in range(logits.shape[1]) if other != number]
        return logits[:, number] - logits[:, others].logsumexp(dim=1)

    def slopes(self, tokens: Tensor, number: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (b, n_own, d_model), and the gradient there of a class's log odds, summed over `own` units."""
        tokens.requires_grad_(True)
        odds = self.log_odds(self.logits(tokens), number)
        (found,) = torch.autograd.grad((odds if own is None else odds[own]).sum(), tokens)
        return tokens.detach()[:, self.own], found[:, self.own]

    @property
    def own(self) -> slice:
        """Positions of the tokens that edits move; StoreError where there are none."""
        return self.store.row_slice(self.tokens)

    def batches(self, image_ids: Sequence[int] | NDArray[np.integer]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Pictures by id, and their tokens (b, n_tokens, d_model)."""
        ids = np.asarray(image_ids, dtype=np.int64)
        for start in range(0, len(ids), self.batch_size):
            batch = ids[start : start + self.batch_size]
            # Those that follow one another are read together.
            runs = np.split(batch, np.flatnonzero(np.diff(batch) != 1) + 1)
            tokens = torch.cat([self.store.read(range(int(run[0]), int(run[-1]) + 1), "all") for run in runs])
            yield batch, tokens.to(self.device)

    # --- edits and their outcome ---

    def look(self, images: range) -> None:
        """Take note of the measured split before any edit: `measured` are the ids of what is counted and resampled."""
        self.images, self.measured = images, np.array(images, dtype=np.int64)

    @abstractmethod
    def pictures(self, target: Target, way: Way, limit: int | None, seed: int) -> ClassCounts:
        """Pictures of the measured split to edit a class on, nothing counted yet; drawn by seed above a limit."""

    @abstractmethod
    def patches(
        self, counts: ClassCounts, ids: NDArray[np.int64], tokens: Tensor, active: Callable[[], Tensor]
    ) -> Tensor:
        """Patches that an edit is about, bool (b, n_patches).

        They are edited, and where the unit is a patch they are what is counted. `active` gives on which of the tokens
        that edits move the class's latents are, (b, n_own); `on_patches` says what that is of patches.
        """

    def edited(self, counts: ClassCounts, patches: Tensor, active: Callable[[], Tensor]) -> Tensor:
        """Tokens to edit, a mask over the last ones: bool (b, n_patches) or (b, n_tokens).

        They are the patches that the edit is about and, of an SAE of class tokens, the class token in their place.
        """
        if self.tokens == "patches":
            return patches
        mask = torch.nn.functional.pad(patches, (self.n_prefix, 0))
        if self.tokens == "class":
            mask = torch.zeros_like(mask)
            mask[:, 0] = True
        return mask

    def on_patches(self, chosen: Tensor) -> Tensor:
        """Of tokens that edits move, bool (b, n_own), those that are patches, (b, n_patches)."""
        if self.tokens == "class":
            return chosen.new_zeros(len(chosen), self.store.n_tokens("patches"))
        return chosen[:, self.n_prefix :] if self.tokens == "all" else chosen

    @abstractmethod
    def changes(
        self, counts: ClassCounts, rows: slice, before: Tensor, after: Tensor, patches: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Count an edit of some pictures: values (b, k), and what target units become (..., n_classes)."""

    def meant(self, counts: ClassCounts, rows: slice, patches: Tensor) -> Tensor:
        """Units that an edit is about, bool in the shape of `log_odds`: target pictures, or patches (b, n_patches)."""
        return torch.from_numpy(counts.n_target[rows] > 0).to(patches.device)

    @abstractmethod
    def sums(self, counts: ClassCounts, key: Key, weights: NDArray[np.float64] | None = None) -> Sums:
        """Sum what was counted of an edit over pictures; with weights (resamples, pictures of the split)."""

    @abstractmethod
    def shares(self, way: Way, sums: Sums) -> Shares:
        """Measures from sums: COMMON, then those that the task adds."""

    @abstractmethod
    def gained(self, counts: ClassCounts, better: Key, worse: Key) -> NDArray[np.float64]:
        """How much each measured picture adds to the difference of two edits' effects, (len(measured),)."""

    @abstractmethod
    def why_not(self, target: Target | None, class_id: int) -> str:
        """Say why a class was not suppressed."""

    def becomes(self, counts: ClassCounts, key: Key) -> list[dict[str, float]]:
        """`number` of the classes that target units become, their `share`, and what the task adds."""
        turned = counts.edits[key].becomes / max(counts.n_target.sum(), 1)
        return [{"number": int(number), "share": float(turned[number])} for number in np.flatnonzero(turned)]

    def about(self, target: Target) -> dict[str, Any]:
        """What the summary says of a class beside what all tasks say."""
        return {}

    # --- what figures show, and what replacing whole layers costs ---

    @abstractmethod
    def shown(self, counts: ClassCounts, ids: NDArray[np.int64], rows: slice, patches: Tensor) -> list[int]:
        """Which pictures of a batch are kept as examples."""

    def example(self, reading: Tensor) -> list[float]:
        """The reading of one picture as numbers."""
        return reading.flatten().double().cpu().tolist()

    @abstractmethod
    def judge(self, replacements: Sequence[str], images: range) -> Judge:
        """Judge of whole pictures."""

    @property
    def unit(self) -> Unit:
        """What an answer is given for."""
        return TASKS[self.name].unit

    @property
    def measures(self) -> tuple[str, ...]:
        """All measures, in the order of tables."""
        return (*COMMON, *self.added)


def central_quarter(grid: tuple[int, int]) -> Tensor:
    """Bool (n_patches,): the block of half the height and half the width in the middle of the grid."""
    block = torch.zeros(grid, dtype=torch.bool)
    (top, height), (left, width) = (((side - max(side // 2, 1)) // 2, max(side // 2, 1)) for side in grid)
    block[top : top + height, left : left + width] = True
    return block.flatten()


def drawn(places: NDArray[np.integer], limit: int | None, seed: Sequence[int]) -> NDArray[np.int64]:
    """Places in their order, or so many of them drawn by seed."""
    if limit is not None:
        places = np.sort(np.random.default_rng(list(seed)).permutation(places)[:limit])
    return places.astype(np.int64)


def per_class(ids: Tensor, chosen: Tensor, n_classes: int) -> NDArray[np.float64]:
    """How many chosen units of each picture have each class number, (b, n_classes), of ids and chosen (b, n_units)."""
    counted = torch.zeros(len(ids), n_classes + 1, device=ids.device)
    where = torch.where(chosen, ids, n_classes)
    counted.scatter_add_(1, where, torch.ones_like(where, dtype=counted.dtype))
    return counted[:, :-1].double().cpu().numpy()
