"""What switching off each latent would do to the true class: on train as it comes, and group by group elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from visae.arms.selection import Selection
from visae.discovery.estimate import batch_total
from visae.groups.pictures import Grouped
from visae.progress import progress_bar
from visae.tasks.pictures import PictureTask


@dataclass(frozen=True)
class Estimates:
    """Change of the log odds of the true class, a picture, were a latent switched off in all pictures; (width,) each.

    Below 0 the latent helps there, above 0 it harms.

    Attributes
    ----------
    train
        In the pictures of split train, each class as often as it is there.
    weak, strong
        In the groups whose accuracy is below the mean over groups, and in the others; each group counts alike.
    """

    train: NDArray[np.float64]
    weak: NDArray[np.float64]
    strong: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """How much a latent does both: what it gives on train or takes in weak groups, whichever is less."""
        return np.minimum(-self.train, self.weak)

    def ranked(self, active: Sequence[int]) -> list[int]:
        """Latents that help on train and harm in weak groups, those that do most of both first."""
        scores = self.scores
        return sorted((latent for latent in active if scores[latent] > 0), key=lambda latent: -scores[latent])


def estimates(
    selection: Selection,
    by_class: Mapping[int, Sequence[int]],
    chosen: Grouped,
    weak: NDArray[np.bool_],
    most: int,
    points: int,
) -> Estimates:
    """Estimate what every latent does to the true class, from backward passes as `visae.discovery.estimate` takes them.

    Parameters
    ----------
    by_class
        Pictures of train by class number.
    chosen
        Pictures whose groups are known.
    weak
        (n_groups,) which groups are weak; some are, and some are not.
    most
        Pictures of each class of train, and of each group and class, at most.
    points
        Where gradients are taken.
    """
    seed = [selection.seed, 32]
    cells = chosen.cells
    by_cell = {cell: chosen.ids[chosen.of_cell(cell)] for cell in cells}
    with progress_bar(len(by_class) + len(cells), "effects on the true class", "classes and groups") as bar:

        def effect(image_ids: Sequence[int] | NDArray[np.int64], number: int) -> NDArray[np.float64]:
            drawn = np.sort(np.random.default_rng(seed).permutation(np.asarray(image_ids))[:most])
            bar.update()
            return _effect(selection, drawn, number, points)

        n_train = {number: len(images) for number, images in by_class.items()}
        train = np.zeros(selection.sae.width)
        for number, images in by_class.items():
            train += n_train[number] * effect(images, number)
        of_cells = {cell: effect(images, cell[1]) for cell, images in by_cell.items()}
    of_groups = np.zeros((len(chosen.names), selection.sae.width))
    for cell, found in of_cells.items():
        of_groups[cell[0]] += len(by_cell[cell]) / chosen.sizes[cell[0]] * found
    return Estimates(train / max(sum(n_train.values()), 1), of_groups[weak].mean(axis=0), of_groups[~weak].mean(axis=0))


def _effect(selection: Selection, images: NDArray[np.int64], number: int, points: int) -> NDArray[np.float64]:
    """Mean over pictures of a class number, (width,)."""
    total = torch.zeros(selection.sae.width, dtype=torch.float64, device=selection.task.device)
    for _, tokens in selection.task.batches(images):
        total += batch_total(selection, tokens, number, None, points)
    return (-total / max(len(images), 1)).cpu().numpy()


def pictures_by_class(task: PictureTask, split: str) -> dict[int, list[int]]:
    """Pictures of a split by class number, those whose class the task knows."""
    found: dict[int, list[int]] = {}
    for image_id in task.store.image_ids(split):
        if task.labels.get(image_id) in task.numbers:
            found.setdefault(task.numbers[task.labels[image_id]], []).append(image_id)
    return dict(sorted(found.items()))
