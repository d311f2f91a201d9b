"""Single pictures that experiments keep for figures: the task's reading before and after some arms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import torch
from torch import Tensor

from visae.arms.arms import Outcome
from visae.config.interventions import AUTOMATIC, MATCHED, NATURAL
from visae.tasks.counts import ClassCounts
from visae.tasks.task import Task

EXAMPLE_ARMS = (
    (AUTOMATIC, NATURAL),
    ("random_latent", NATURAL),
    ("random_vector", MATCHED),
    ("random_latent", MATCHED),
)
"""Arms and sizes that examples are kept of: the first draw."""

SCHEMA: dict[str, Any] = {
    "edit": pl.String,
    "arm": pl.String,
    "size": pl.String,
    "scale": pl.Float64,
    "image_id": pl.Int32,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "latents": pl.List(pl.Int32),
    "edited": pl.List(pl.Int16),
    "before": pl.List(pl.Float64),
    "after": pl.List(pl.Float64),
}


def example_rows(
    task: Task, counts: ClassCounts, outcome: Outcome, shown: Mapping[int, int], before: Tensor, patches: Tensor
) -> Iterator[dict[str, Any]]:
    """Rows of SCHEMA of some pictures of a batch.

    `before` and `after` are what `Task.example` says: in segmentation the id of the predicted class of each patch, in
    tasks on pictures the probability of each class, of a readout the numbers of the first outputs.

    Parameters
    ----------
    shown
        image_id by place in the batch.
    before
        The task's reading of the batch, (b, ...).
    patches
        Edited tokens, a mask over the last ones: bool (b, n_patches) or (b, n_tokens). Their ids are kept: -1 is the
        class token.
    """
    if (outcome.arm, outcome.size) not in EXAMPLE_ARMS or outcome.draw:
        return
    target = counts.target
    ids = torch.tensor(task.store.choice.tokens[-patches.shape[1] :])
    for place, image_id in shown.items():
        about = {
            "edit": counts.way,
            "arm": outcome.arm,
            "size": outcome.size,
            "image_id": image_id,
            "class_name": target.class_name,
            "class_id": target.class_id,
            "latents": list(target.latents),
            "edited": ids[patches[place].cpu()].tolist(),
            "before": task.example(before[place]),
            "after": task.example(outcome.after[place]),
        }
        yield from (about | {"scale": scale} for scale in outcome.scales)
