"""Segmentation: what a head says of each patch, before and after its own or other patches are edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.errors import DataError
from visae.heads.bootstrap import class_mean
from visae.heads.masks import Masks, patch_channels
from visae.heads.segmentation_head import SegmentationHead, load_segmentation_head
from visae.heads.segmentation_metrics import LEVELS, SegmentationTally
from visae.heads.tokens import open_store
from visae.tasks.counts import SUPPRESS, ClassCounts, Key, Shares, Target, Way, common_shares, ratio
from visae.tasks.files import TaskFiles
from visae.tasks.task import Resumed, Sums, Task, central_quarter, drawn, per_class
from visae.vision.model import VisionModel

_SHOWN = 3  # pictures of a class that are kept as examples


class Segmentation(Task):
    """A segmentation head's prediction for each patch.

    *Suppress*: in each picture whose mask has the class, the patches that the head predicts as the class are edited;
    the target are these, and the others the rest of the picture. *Insert*: in pictures that have the class neither in
    their mask nor in the head's prediction, the central quarter is edited; the target are the patches there, of which
    those count that become the class. `miou_change` is what becomes of the mIoU of the patches of these pictures.

    Parameters
    ----------
    labels
        Head's channel of each patch by picture; below 0 where it has none.
    """

    name: ClassVar[str] = "segmentation"
    added: ClassVar[tuple[str, ...]] = ("miou_change",)

    def __init__(
        self,
        resume: Resumed,
        head: SegmentationHead,
        store: ActivationStore,
        labels: dict[int, Tensor],
        batch_size: int,
        index: str = "",
        masks: Masks | None = None,
    ) -> None:
        super().__init__(resume, store, head.n_prefix, head.grid, head.classes, head.not_learned, batch_size)
        self.head, self.labels, self.index, self.masks = head, labels, index, masks
        self.device = head.weight.device
        self.seen = np.empty((0, 0), dtype=np.int16)

    @classmethod
    def open(cls, files: TaskFiles, model: VisionModel, layer: int, batch_size: int = 32) -> Segmentation:
        """Open the task of a head from its files; raises ModelError or DataError where they do not fit together."""
        head = load_segmentation_head(files.readout, model.card, model.device)
        labels = patch_channels(files.needed("labels"), [c["id"] for c in head.classes], head.grid)
        masks = Masks(files.index, model.card, [c["id"] for c in head.classes])
        store = open_store(files.manifest, model.card, layer)
        return cls(model.resumed(layer), head, store, labels, batch_size, files.index, masks)

    def answers(self, final: Tensor) -> Tensor:
        """Logits (b, n_classes, n_patches)."""
        return self.head(final).flatten(2)

    def reading(self, logits: Tensor) -> Tensor:
        """Predicted channel of each patch (b, n_patches)."""
        return logits.argmax(dim=1)

    def look(self, images: range) -> None:
        """Predict every patch of the measured split."""
        super().look(images)
        parts = [self.read(tokens).cpu().numpy() for _, tokens in self.batches(np.array(images))]
        self.seen = np.concatenate(parts).astype(np.int16)

    def truth(self, image_ids: NDArray[np.integer]) -> NDArray[np.int16]:
        """Labelled channel of each patch, (n, n_patches), below 0 where there is none."""
        unlabelled = torch.full((self.grid[0] * self.grid[1],), -1, dtype=torch.int16)
        return torch.stack([self.labels.get(int(i), unlabelled) for i in image_ids]).numpy()

    def pictures(self, target: Target, way: Way, limit: int | None, seed: int) -> ClassCounts:
        """Suppress where the mask has the class and some patch is predicted as it; insert where neither is so."""
        channel, truth = self.numbers[target.class_id], self.truth(np.array(self.images))
        occurs, predicted = self._occurrences(channel, truth)
        chosen, stream = (occurs & predicted, 6) if way == SUPPRESS else (~occurs & ~predicted, 7)
        rows = drawn(np.flatnonzero(chosen), limit, [seed, target.class_id, stream])
        if way == SUPPRESS:
            n_target = (self.seen[rows] == channel).sum(axis=1)
        else:
            n_target = np.full(len(rows), int(central_quarter(self.grid).sum()))
        by_class = (truth[rows][:, :, None] == np.arange(len(self.classes))).sum(axis=1)
        return ClassCounts(target, way, rows, n_target, self.seen.shape[1] - n_target, by_class)

    def patches(
        self, counts: ClassCounts, ids: NDArray[np.int64], tokens: Tensor, active: Callable[[], Tensor]
    ) -> Tensor:
        """Patches that are predicted as the class, or the central quarter."""
        if counts.way == SUPPRESS:
            before = torch.from_numpy(self.seen[ids - self.images.start]).to(tokens.device, torch.int64)
            return before == self.numbers[counts.target.class_id]
        return central_quarter(self.grid).to(tokens.device).expand(len(tokens), -1)

    def changes(
        self, counts: ClassCounts, rows: slice, before: Tensor, after: Tensor, patches: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Patches that changed, edited ones and others; labelled ones predicted rightly and at all, by class."""
        n_classes = len(self.classes)
        truth = torch.from_numpy(self.truth(self.measured[counts.images[rows]])).to(after.device, torch.int64)
        changed = after != before
        hit = changed & patches
        if counts.way != SUPPRESS:
            hit = hit & (after == self.numbers[counts.target.class_id])
        own = torch.stack([hit.sum(dim=1), (changed & ~patches).sum(dim=1)], dim=1).double().cpu().numpy()
        by_class = [per_class(after, chosen, n_classes) for chosen in (after == truth, truth >= 0)]
        becomes = torch.bincount(after[patches], minlength=n_classes).double().cpu().numpy()
        return np.concatenate([own, *by_class], axis=1), becomes

    def meant(self, counts: ClassCounts, rows: slice, patches: Tensor) -> Tensor:
        """The patches that the edit is about."""
        return patches

    def sums(self, counts: ClassCounts, key: Key, weights: NDArray[np.float64] | None = None) -> Sums:
        """Numbers of patches; those of the unedited pictures are called `before`."""
        own = None if weights is None else weights[:, counts.images]

        def summed(values: NDArray) -> NDArray[np.float64]:
            return np.asarray(values.sum(axis=0) if own is None else own @ values)

        found: Sums = {"n_target": summed(counts.n_target), "n_other": summed(counts.n_other)}
        found["truth"] = summed(counts.labels)
        n_classes = len(self.classes)
        for when, edit in (("", key), ("_before", ("none", "natural", key[2]))):
            values = summed(counts.edits[edit].values)
            found |= {f"target{when}": values[..., 0], f"other{when}": values[..., 1]}
            found |= {f"hits{when}": values[..., 2 : 2 + n_classes], f"predicted{when}": values[..., 2 + n_classes :]}
        return found

    def shares(self, way: Way, sums: Sums) -> Shares:
        """COMMON measures and miou_change."""
        before, after = (
            class_mean(ratio(sums[f"hits{when}"], sums["truth"] + sums[f"predicted{when}"] - sums[f"hits{when}"]))
            for when in ("_before", "")
        )
        common = common_shares(sums["target"], sums["n_target"], sums["other"], sums["n_other"])
        return {**common, "miou_change": after - before}

    def gained(self, counts: ClassCounts, better: Key, worse: Key) -> NDArray[np.float64]:
        """Difference of selectivity."""
        difference = counts.edits[better].values - counts.edits[worse].values
        added = np.zeros(len(self.images))
        of_target = difference[:, 0] / counts.n_target.sum()
        added[counts.images] = of_target - difference[:, 1] / max(counts.n_other.sum(), 1)
        return added

    def why_not(self, target: Target | None, class_id: int) -> str:
        """Say why a class was not suppressed."""
        if target is None:
            return "no latent that is active on the selection split was chosen for it there"
        occurs, _ = self._occurrences(self.numbers[class_id], self.truth(np.array(self.images)))
        if not occurs.any():
            return "no patch of the measured split is labelled with it"
        return "the head predicts it in none of the measured pictures that have it"

    def about(self, target: Target) -> dict[str, Any]:
        """Pictures that have a class, and no patch that is predicted as it."""
        occurs, predicted = self._occurrences(self.numbers[target.class_id], self.truth(np.array(self.images)))
        return {"pictures_without_prediction": int((occurs & ~predicted).sum())}

    def shown(self, counts: ClassCounts, ids: NDArray[np.int64], rows: slice, patches: Tensor) -> list[int]:
        """Pictures with most of the class, in their masks or, where it is inserted, in none: the first ones."""
        labelled = counts.labels[:, self.numbers[counts.target.class_id]]
        most = set(np.argsort(-labelled, kind="stable")[:_SHOWN].tolist())
        return [place for place, row in enumerate(range(rows.start, rows.stop)) if row in most]

    def example(self, reading: Tensor) -> list[float]:
        """Ids of the predicted classes."""
        return np.array([c["id"] for c in self.classes], dtype=float)[reading.cpu().numpy()].tolist()

    def judge(self, replacements: Sequence[str], images: range) -> _Judge:
        """Judge the mIoU of patches and pixels."""
        assert self.masks is not None
        return _Judge(self, self.masks, replacements)

    def _occurrences(self, channel: int, truth: NDArray[np.int16]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which pictures have a class in their mask, and in the prediction."""
        return (truth == channel).any(axis=1), (self.seen == channel).any(axis=1)


class _Judge:
    """mIoU under each replacement."""

    def __init__(self, task: Segmentation, masks: Masks, replacements: Sequence[str]) -> None:
        self.task, self.masks = task, masks
        self.tallies = {name: SegmentationTally(task.classes) for name in replacements}

    def __contains__(self, image_id: int) -> bool:
        return image_id in self.masks

    def add(self, image_ids: list[int], final: dict[str, Tensor]) -> None:
        patches = torch.stack([self.task.labels[i] for i in image_ids])
        pixels = torch.stack([self.masks.read(i) for i in image_ids])
        for name, tokens in final.items():
            self.tallies[name].add(self.task.head(tokens), patches, pixels)

    @property
    def n_images(self) -> int:
        return next(iter(self.tallies.values())).levels["patch"].n_images

    def measures(self) -> Callable[[NDArray], dict[str, NDArray]]:
        if next(iter(self.tallies.values())).is_empty:
            raise DataError(f"{self.task.index}: no patch of the measured split is labelled")

        def measure(weights: NDArray) -> dict[str, NDArray]:
            return {
                f"{level}_miou {name}": tally.levels[level].measures(weights)["miou"]
                for level in LEVELS
                for name, tally in self.tallies.items()
            }

        return measure
