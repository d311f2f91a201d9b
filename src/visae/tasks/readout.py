"""Any linear readout of given activations: which outputs come first for a row, before an edit and after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.errors import DataError, ModelError
from visae.tasks.counts import SUPPRESS, ClassCounts, Key, Shares, Target, Way, common_shares, ratio
from visae.tasks.files import TaskFiles
from visae.tasks.task import Sums, Task, drawn
from visae.tasks.zero_shot import read_named_rows

_SHOWN = 3  # rows of a class that are kept as examples


class Readout(Task):
    """The list of the first n outputs of each row, such as the items that a recommender shows a user.

    Outputs belong to classes, such as items to tastes. *Suppress*: in rows whose list has an output of the class; the
    target are these outputs, of which those count that leave the list, and the others the rest of the list.
    *Insert*: in rows whose list has none; the target are the places of the list, of which those count that the class
    takes. `kept` is the share of the list that stays, `rank_change` by how many places the class's outputs move down
    among all, `other_rank_change` how far all others move up or down.

    Parameters
    ----------
    weight, bias
        (n_outputs, d_model) and (n_outputs,).
    of_class
        (n_outputs,) class number of each output.
    first
        Length of the list.
    """

    name: ClassVar[str] = "readout"
    added: ClassVar[tuple[str, ...]] = ("kept", "rank_change", "other_rank_change")

    def __init__(
        self,
        store: ActivationStore,
        weight: Tensor,
        bias: Tensor,
        of_class: Tensor,
        classes: Sequence[dict[str, Any]],
        first: int,
        batch_size: int = 32,
    ) -> None:
        super().__init__(lambda tokens: tokens, store, store.choice.n_prefix, (1, store.n_tokens("patches")), classes)
        self.weight, self.bias, self.of_class, self.first = weight, bias, of_class, first
        self.device, self.batch_size = weight.device, batch_size
        self.lists = np.empty((0, first), dtype=np.int64)

    @classmethod
    def open(cls, files: TaskFiles, device: torch.device, batch_size: int = 32) -> Readout:
        """Open the task from its files.

        Raises
        ------
        DataError
            If the file is not of that form.
        ModelError
            If it reads activations of another width than the store has.
        """
        weight, names, metadata = read_named_rows(files.readout, "weight")
        store = ActivationStore.open(files.manifest)
        if weight.shape[1] != store.d_model:
            raise ModelError(
                f"{files.readout}: a readout of {weight.shape[1]} values over a store of {store.d_model} "
                f"({files.manifest}); give the readout of these activations"
            )
        if not 0 < files.first < len(names):
            raise DataError(f"{files.readout}: first: {files.first}: a list is shorter than the {len(names)} outputs")
        groups = _groups(files.readout, names, metadata)
        kinds = sorted(set(groups))
        classes = [{"id": number, "name": kind} for number, kind in enumerate(kinds)]
        of_class = torch.tensor([kinds.index(group) for group in groups], device=device)
        bias = torch.zeros(len(names), device=device)
        return cls(store, weight.to(device), bias, of_class, classes, files.first, batch_size)

    def answers(self, final: Tensor) -> Tensor:
        """Scores (b, n_outputs) of the mean token."""
        return final[:, self.n_prefix :].mean(dim=1) @ self.weight.T + self.bias

    def reading(self, logits: Tensor) -> Tensor:
        """Scores."""
        return logits

    def log_odds(self, logits: Tensor, number: int) -> Tensor:
        """Log odds (b,) of a class's outputs, taken together, against all others."""
        own = self.of_class == number
        return logits[:, own].logsumexp(dim=1) - logits[:, ~own].logsumexp(dim=1)

    def listed(self, scores: Tensor) -> Tensor:
        """Numbers of the first outputs of each row (b, first), the best first."""
        return scores.topk(self.first, dim=1).indices

    def look(self, images: range) -> None:
        """List the first outputs of every row."""
        super().look(images)
        self.lists = np.concatenate(
            [self.listed(self.read(tokens)).cpu().numpy() for _, tokens in self.batches(np.array(images))]
        )

    def pictures(self, target: Target, way: Way, limit: int | None, seed: int) -> ClassCounts:
        """Rows whose list has an output of the class, or none."""
        own = self._own(target)[self.lists].sum(axis=1)
        chosen, stream = (own > 0, 6) if way == SUPPRESS else (own == 0, 7)
        rows = drawn(np.flatnonzero(chosen), limit, [seed, target.class_id, stream])
        n_target = own[rows] if way == SUPPRESS else np.full(len(rows), self.first)
        n_other = self.first - n_target
        return ClassCounts(target, way, rows, n_target.astype(np.int64), n_other.astype(np.int64), self.lists[rows])

    def patches(
        self, counts: ClassCounts, ids: NDArray[np.int64], tokens: Tensor, active: Callable[[], Tensor]
    ) -> Tensor:
        """Every patch of the row."""
        shape = len(tokens), tokens.shape[1] - self.n_prefix
        return torch.ones(shape, dtype=torch.bool, device=tokens.device)

    def changes(
        self, counts: ClassCounts, rows: slice, before: Tensor, after: Tensor, patches: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Outputs that left the list, of the class and others; how much stays; places moved. Places by class."""
        own = torch.from_numpy(self._own(counts.target)).to(before.device)
        was, now = (torch.zeros_like(scores, dtype=torch.bool) for scores in (before, after))
        for members, scores in ((was, before), (now, after)):
            members.scatter_(1, self.listed(scores), True)
        left = was & ~now
        target = (left & own if counts.way == SUPPRESS else now & own).sum(dim=1)
        moved = (_ranks(after) - _ranks(before)).double()
        values = torch.stack(
            [
                target.double(),
                (left & ~own).sum(dim=1).double(),
                (was & now).sum(dim=1) / self.first,
                moved[:, own].mean(dim=1),
                moved[:, ~own].abs().mean(dim=1),
            ],
            dim=1,
        )
        places = torch.bincount(self.of_class[self.listed(after)].flatten(), minlength=len(self.classes))
        return values.cpu().numpy(), places.double().cpu().numpy()

    def sums(self, counts: ClassCounts, key: Key, weights: NDArray[np.float64] | None = None) -> Sums:
        """Sums over rows."""
        times = np.ones(len(counts.images)) if weights is None else weights[:, counts.images]
        values = times @ counts.edits[key].values
        names = ("target", "other", *self.added)
        found: Sums = {name: values[..., place] for place, name in enumerate(names)}
        for name in ("n_target", "n_other"):
            found[name] = np.asarray(times @ getattr(counts, name))
        return found | {"n_rows": np.asarray(times.sum(axis=-1))}

    def shares(self, way: Way, sums: Sums) -> Shares:
        """COMMON measures, and means over rows."""
        n_other = sums["n_other"] * int(way == SUPPRESS)
        common = common_shares(sums["target"], sums["n_target"], sums["other"], n_other)
        return {**common, **{name: ratio(sums[name], sums["n_rows"]) for name in self.added}}

    def gained(self, counts: ClassCounts, better: Key, worse: Key) -> NDArray[np.float64]:
        """Difference of selectivity."""
        difference = counts.edits[better].values - counts.edits[worse].values
        beside = difference[:, 1] / max(counts.n_other.sum(), 1) if counts.way == SUPPRESS else 0.0
        added = np.zeros(len(self.images))
        added[counts.images] = difference[:, 0] / counts.n_target.sum() - beside
        return added

    def becomes(self, counts: ClassCounts, key: Key) -> list[dict[str, float]]:
        """Shares of the places of the lists that each class has afterwards."""
        places = counts.edits[key].becomes / max(len(counts.images) * self.first, 1)
        return [{"number": int(number), "share": float(places[number])} for number in np.flatnonzero(places)]

    def why_not(self, target: Target | None, class_id: int) -> str:
        """Say why a class was not suppressed."""
        if target is None:
            return "no latent raises its outputs on the selection split"
        return f"none of its outputs is among the first {self.first} of any measured row"

    def shown(self, counts: ClassCounts, ids: NDArray[np.int64], rows: slice, patches: Tensor) -> list[int]:
        """Rows with most outputs of the class: the first ones."""
        most = set(np.argsort(-counts.n_target, kind="stable")[:_SHOWN].tolist())
        return [place for place, row in enumerate(range(rows.start, rows.stop)) if row in most]

    def example(self, reading: Tensor) -> list[float]:
        """Numbers of the first outputs."""
        return self.listed(reading[None])[0].double().cpu().tolist()

    def judge(self, replacements: Sequence[str], images: range) -> _Judge:
        """Judge how much of the list stays."""
        return _Judge(self, replacements)

    def _own(self, target: Target) -> NDArray[np.bool_]:
        """Whether an output is of the class, (n_outputs,)."""
        return (self.of_class == self.numbers[target.class_id]).cpu().numpy()


def _ranks(scores: Tensor) -> Tensor:
    """Place of each output in its row, 0 for the best."""
    return scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)


def _groups(path: str, names: list[str], metadata: dict[str, str]) -> list[str]:
    """Class of each output: metadata `classes`, a JSON list, one a row; without it each output is its own."""
    try:
        groups = json.loads(metadata.get("classes", "null"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: its metadata classes are no JSON: {error}") from error
    groups = names if groups is None else groups
    if not isinstance(groups, list) or len(groups) != len(names) or not all(isinstance(g, str) for g in groups):
        raise DataError(f"{path}: its metadata classes must be a JSON list of {len(names)} texts, one an output")
    if len(set(groups)) < 2:
        raise DataError(f"{path}: all outputs are of class {groups[0]!r}; a class is judged beside others")
    return groups


class _Judge:
    """How much of the list stays under each replacement."""

    def __init__(self, task: Readout, replacements: Sequence[str]) -> None:
        self.task = task
        self._kept: dict[str, list[NDArray]] = {name: [] for name in replacements}

    def __contains__(self, image_id: int) -> bool:
        return True

    def add(self, image_ids: list[int], final: dict[str, Tensor]) -> None:
        lists = {name: self.task.listed(self.task.answers(tokens)) for name, tokens in final.items()}
        first = next(iter(lists.values()))
        for name, members in lists.items():
            stays = (members[:, :, None] == first[:, None, :]).any(dim=2)
            self._kept[name].append(stays.double().mean(dim=1).cpu().numpy())

    @property
    def n_images(self) -> int:
        return sum(map(len, next(iter(self._kept.values()))))

    def measures(self) -> Callable[[NDArray], dict[str, NDArray]]:
        kept = {name: np.concatenate(parts) for name, parts in self._kept.items()}

        def measure(weights: NDArray) -> dict[str, NDArray]:
            return {f"kept {name}": weights @ values / weights.sum(axis=1) for name, values in kept.items()}

        return measure
