"""Single pictures that classification edits keep, for figures: the likeliest classes before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from torch import Tensor

from visae.interventions.arms import AUTOMATIC, MATCHED, NATURAL
from visae.interventions.targets import Target

EXAMPLES_PER_CLASS = 2
TOP_CLASSES = 4
EXAMPLE_ARMS = {(AUTOMATIC, NATURAL): "after", ("random_vector", MATCHED): "control"}
"""Arm and size of the edits that examples show, and what they are called there."""

SCHEMA: dict[str, Any] = {
    "edit": pl.String,
    "scale": pl.Float64,
    "image_id": pl.Int32,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "latents": pl.List(pl.Int32),
    "edited": pl.List(pl.Int16),
    "true_class": pl.String,
    "shown_class": pl.String,
    "before": pl.Float64,
    "after": pl.Float64,
    "control": pl.Float64,
}


def examples(
    target: Target,
    edit: str,
    true_classes: Mapping[int, str | None],
    patches: Tensor,
    before: Tensor,
    shown: Mapping[tuple[float, str], Tensor],
    class_names: list[str],
) -> list[dict[str, Any]]:
    """Rows of SCHEMA for the pictures with most edited patches: one a class that is likeliest before or after.

    Parameters
    ----------
    true_classes
        Class of each of the k pictures, by image_id, in the order of the tensors.
    patches
        Edited patches, bool (k or more, n_patches).
    before
        Probabilities (k or more, n_classes).
    shown
        Probabilities after edits, by scale and a name of EXAMPLE_ARMS.
    """
    image_ids = list(true_classes)
    most = patches[: len(image_ids)].sum(dim=1).argsort(descending=True, stable=True)[:EXAMPLES_PER_CLASS].tolist()
    rows = []
    for scale in dict.fromkeys(scale for scale, name in shown if name == "after"):
        after, control = shown[(scale, "after")], shown.get((scale, "control"))
        for i in most:
            about = {
                "edit": edit,
                "scale": scale,
                "image_id": image_ids[i],
                "class_name": target.class_name,
                "class_id": target.class_id,
                "latents": list(target.latents),
                "edited": patches[i].nonzero()[:, 0].tolist(),
                "true_class": true_classes[image_ids[i]],
            }
            likeliest = torch.maximum(before[i], after[i]).topk(min(TOP_CLASSES, len(class_names))).indices
            for column in likeliest.tolist():
                rows.append(
                    about
                    | {
                        "shown_class": class_names[column],
                        "before": float(before[i, column]),
                        "after": float(after[i, column]),
                        "control": None if control is None else float(control[i, column]),
                    }
                )
    return rows
