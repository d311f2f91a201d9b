"""Tasks that answer with one class a picture: a trained probe, or class vectors after the model's own projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.errors import DataError
from visae.heads.calibration import Judged, Verdicts, verdicts
from visae.sae.place import among_last
from visae.tasks.counts import INSERT, SUPPRESS, ClassCounts, Key, Shares, Target, Way, common_shares, ratio
from visae.tasks.task import Resumed, Sums, Task, central_quarter, drawn

PICTURE_MEASURES = (
    "probability_before",
    "probability_after",
    "top1_before",
    "top1_after",
    "accuracy_before",
    "accuracy_after",
    "truth_before",
    "truth_after",
    "mass_moved",
)
"""Of one picture: the probability of the edited class, whether it is the likeliest, whether the likeliest is the true
one, the probability of the true one, and half the sum of all changes of probability."""

MOVED_TO = 5
"""Classes that gained most, of which it is published how much."""

_SHOWN = 3  # pictures of a class that are kept as examples
_COLUMN = {name: place for place, name in enumerate(PICTURE_MEASURES)}


class PictureTask(Task):
    """The probability of each class.

    *Suppress*: in a class's own pictures and in pictures of others, the patches where its latents are active are
    edited; the target are its own pictures, and the others should stay as they are. Pictures where the latents are
    silent count, unchanged. *Insert*: in those pictures of other classes, the central quarter is edited; the target are
    these, of which those count that become the class.

    Parameters
    ----------
    labels
        Class id by picture.
    """

    added: ClassVar[tuple[str, ...]] = (
        *("probability_before", "probability_after", "probability_change", "top1_before", "top1_after", "mass_moved"),
        *("other_probability_change", "other_accuracy_before", "other_accuracy_after", "other_mass_moved"),
        "probability_selectivity",
    )
    effect: ClassVar[Mapping[Way, str]] = {SUPPRESS: "probability_selectivity", INSERT: "probability_change"}
    moves: ClassVar[str] = "probability_change"
    spills: ClassVar[str] = "other_mass_moved"

    def __init__(
        self,
        resume: Resumed,
        store: ActivationStore,
        n_prefix: int,
        grid: tuple[int, int],
        classes: Sequence[dict[str, Any]],
        not_learned: Sequence[dict[str, Any]],
        labels: Mapping[int, int],
        batch_size: int = 32,
    ) -> None:
        super().__init__(resume, store, n_prefix, grid, classes, not_learned, batch_size)
        self.labels = labels
        self.known = np.empty(0, dtype=np.int64)

    def reading(self, logits: Tensor) -> Tensor:
        """Class probabilities (b, n_classes)."""
        return logits.softmax(dim=1)

    def look(self, images: range) -> None:
        """Take note of the labelled pictures of the measured split: `known` are their class ids."""
        super().look(images)
        self.measured = np.array([i for i in images if i in self.labels], dtype=np.int64)
        self.known = np.array([self.labels[i] for i in self.measured.tolist()], dtype=np.int64)

    def pictures(self, target: Target, way: Way, limit: int | None, seed: int) -> ClassCounts:
        """Own pictures and others where it is suppressed, others alone where it is inserted."""
        own, others = (
            drawn(np.flatnonzero(chosen), limit, [seed, target.class_id, stream])
            for chosen, stream in ((self.known == target.class_id, 6), (self.known != target.class_id, 7))
        )
        if way == INSERT:
            own, others = others, others[:0]
        elif not len(own):
            others = others[:0]
        places, n_target = np.concatenate([own, others]), np.repeat([1, 0], [len(own), len(others)])
        labels = np.array([self.numbers.get(class_id, -1) for class_id in self.known[places].tolist()], dtype=np.int64)
        return ClassCounts(target, way, places, n_target, 1 - n_target, labels)

    def patches(
        self, counts: ClassCounts, ids: NDArray[np.int64], tokens: Tensor, active: Callable[[], Tensor]
    ) -> Tensor:
        """Where the latents are active, or the central quarter."""
        if counts.way == SUPPRESS:
            return self.on_patches(active())
        return central_quarter(self.grid).to(tokens.device).expand(len(tokens), -1)

    def edited(self, counts: ClassCounts, patches: Tensor, active: Callable[[], Tensor]) -> Tensor:
        """Tokens where the latents are active; where a class is inserted, the central quarter or the class token."""
        if counts.way == SUPPRESS and self.tokens != "patches":
            return among_last(active(), self.tokens, self.n_prefix + patches.shape[1])
        return super().edited(counts, patches, active)

    def changes(
        self, counts: ClassCounts, rows: slice, before: Tensor, after: Tensor, patches: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """PICTURE_MEASURES, whether the likeliest class changed; likeliest classes and changes of target pictures."""
        column, own = self.numbers[counts.target.class_id], torch.from_numpy(counts.n_target[rows] > 0)
        truth = torch.from_numpy(counts.labels[rows])
        likeliest = after.argmax(dim=1)
        changed = likeliest != before.argmax(dim=1)
        if counts.way == INSERT:
            changed = changed & (likeliest == column)
        values = picture_measures(before, after, column, truth)
        counted = (
            torch.bincount(likeliest[own.to(likeliest.device)], minlength=len(self.classes)).double().cpu().numpy()
        )
        moved = (after - before)[own.to(after.device)].sum(dim=0).double().cpu().numpy()
        return np.column_stack([values, changed.double().cpu().numpy()]), np.stack([counted, moved])

    def sums(self, counts: ClassCounts, key: Key, weights: NDArray[np.float64] | None = None) -> Sums:
        """Sums over target pictures and over others; where a class is inserted, both are the same pictures."""
        values, times = counts.edits[key].values, np.ones(len(counts.images))
        if weights is not None:
            times = weights[:, counts.images]
        own = counts.n_target > 0
        others = ~own if counts.way == SUPPRESS else own
        found: Sums = {}
        for name, chosen in (("own", own), ("others", others)):
            weight, counted = times[..., chosen], values[chosen]
            found |= {name: weight @ counted[:, :-1].copy(), f"{name}_changed": weight @ counted[:, -1]}
            found[f"n_{name}"] = weight.sum(axis=-1)
        return found

    def shares(self, way: Way, sums: Sums) -> Shares:
        """COMMON measures, then those of probabilities."""
        own, others = (ratio(sums[name], sums[f"n_{name}"][..., None]) for name in ("own", "others"))
        suppressed = way == SUPPRESS
        n_others = sums["n_others"] * int(suppressed)
        common = common_shares(sums["own_changed"], sums["n_own"], sums["others_changed"], n_others)
        change = own[..., _COLUMN["probability_after"]] - own[..., _COLUMN["probability_before"]]
        other_moved = others[..., _COLUMN["mass_moved"]]
        undefined = np.full_like(other_moved, np.nan)
        return {
            **common,
            **{name: own[..., _COLUMN[name]] for name in ("probability_before", "probability_after")},
            "probability_change": change,
            **{name: own[..., _COLUMN[name]] for name in ("top1_before", "top1_after", "mass_moved")},
            "other_probability_change": others[..., _COLUMN["truth_after"]] - others[..., _COLUMN["truth_before"]],
            "other_accuracy_before": others[..., _COLUMN["accuracy_before"]],
            "other_accuracy_after": others[..., _COLUMN["accuracy_after"]],
            "other_mass_moved": other_moved if suppressed else undefined,
            "probability_selectivity": -change - other_moved if suppressed else undefined,
        }

    def gained(self, counts: ClassCounts, better: Key, worse: Key) -> NDArray[np.float64]:
        """Difference of the selectivity of probabilities, or of the gain in probability where a class is inserted."""
        difference = counts.edits[better].values - counts.edits[worse].values
        own = counts.n_target > 0
        effect = difference[:, _COLUMN["probability_after"]] / max(own.sum(), 1)
        added = np.zeros(len(self.measured))
        if counts.way == INSERT:
            added[counts.images] = effect
        else:
            moved = difference[:, _COLUMN["mass_moved"]] / max((~own).sum(), 1)
            added[counts.images] = np.where(own, -effect, -moved)
        return added

    def becomes(self, counts: ClassCounts, key: Key) -> list[dict[str, float]]:
        """Classes that target pictures are taken for, the edited one, and those that gain most probability."""
        counted, moved = counts.edits[key].becomes / max(counts.n_target.sum(), 1)
        target = self.numbers[counts.target.class_id]
        gaining = [number for number in np.argsort(-moved, kind="stable") if moved[number] > 0]
        chosen = dict.fromkeys([target, *gaining[:MOVED_TO], *np.flatnonzero(counted)])
        return [
            {"number": int(number), "share": float(counted[number]), "probability_change": float(moved[number])}
            for number in chosen
        ]

    def why_not(self, target: Target | None, class_id: int) -> str:
        """Say why a class was not suppressed."""
        if target is None:
            return "no latent is active in its pictures of the selection split"
        if class_id not in self.known:
            return "the measured split has no picture of it"
        return "its latents are active in none of its pictures of the measured split"

    def shown(self, counts: ClassCounts, ids: NDArray[np.int64], rows: slice, patches: Tensor) -> list[int]:
        """Of the first batch the target pictures with most edited patches."""
        own = np.flatnonzero(counts.n_target[rows] > 0) if rows.start == 0 else np.empty(0, dtype=np.int64)
        edited = patches.sum(dim=1).cpu().numpy()[own]
        return own[np.argsort(-edited, kind="stable")][:_SHOWN].tolist()

    def judge(self, replacements: Sequence[str], images: range) -> _Judge:
        """Judge accuracy and log loss."""
        return _Judge(self, replacements, images)


def picture_measures(before: Tensor, after: Tensor, column: int, truth: Tensor) -> NDArray[np.float64]:
    """PICTURE_MEASURES of each picture, (b, len(PICTURE_MEASURES)).

    Parameters
    ----------
    before, after
        (b, n_classes) probabilities.
    column
        The edited class.
    truth
        (b,) each picture's class; below 0 where the probe does not know it.
    """
    truth = truth.to(before.device)
    known, place = truth >= 0, truth.clamp(min=0)[:, None]
    likeliest = [p.argmax(dim=1) for p in (before, after)]
    measures = [
        before[:, column],
        after[:, column],
        *(top == column for top in likeliest),
        *(top == truth for top in likeliest),
        *(p.gather(1, place)[:, 0] * known for p in (before, after)),
        (after - before).abs().sum(dim=1) / 2,
    ]
    return torch.stack([m.double() for m in measures], dim=1).cpu().numpy()


class _Judge:
    """Accuracy and log loss under each replacement."""

    def __init__(self, task: PictureTask, replacements: Sequence[str], images: range) -> None:
        self.task = task
        self.known = {i: task.numbers[task.labels[i]] for i in images if task.labels.get(i) in task.numbers}
        if not self.known:
            raise DataError(f"{task.store.folder}: no measured picture has a class that {task.name} knows")
        self._found: dict[str, list[Verdicts]] = {name: [] for name in replacements}

    def __contains__(self, image_id: int) -> bool:
        return image_id in self.known

    def add(self, image_ids: list[int], final: dict[str, Tensor]) -> None:
        truth = torch.tensor([self.known[i] for i in image_ids])
        for name, tokens in final.items():
            self._found[name].append(verdicts(self.task.answers(tokens), truth))

    @property
    def n_images(self) -> int:
        return len(self.known)

    def measures(self) -> Callable[[NDArray], dict[str, NDArray]]:
        judged = {name: Judged(parts, len(self.task.classes)) for name, parts in self._found.items()}

        def measure(weights: NDArray) -> dict[str, NDArray]:
            found = {name: each.measures(weights) for name, each in judged.items()}
            return {f"{key} {name}": found[name][key] for key in ("accuracy", "log_loss") for name in found}

        return measure
