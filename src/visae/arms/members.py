"""How the selection split is asked, by the unit of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.arms.of_class_tokens import ClassTokenSelection
from visae.arms.of_patches import PatchSelection
from visae.arms.of_pictures import PictureSelection
from visae.arms.of_rows import RowSelection
from visae.arms.selection import Selection
from visae.features.scores import patch_classes
from visae.tasks.task import Task


def selection_of(task: Task, labels: str, min_purity: float, split: str, **more: Any) -> Selection:
    """Return what the selection split says for a task.

    Parameters
    ----------
    labels, min_purity
        Patch labels, and how much of a patch its class has to fill; for tasks on patches.
    split
        The selection split.
    more
        The other attributes of a Selection.
    """
    if task.unit == "picture":
        return PictureSelection(task=task, split=split, **more)  # type: ignore[arg-type]
    if task.unit == "row":
        return RowSelection(task=task, split=split, **more)  # type: ignore[arg-type]
    images = task.store.image_ids(split)
    # Labels of patches say which pictures have a class; a class token has none of its own.
    kind = ClassTokenSelection if task.tokens == "class" else PatchSelection
    classes = patch_classes(Path(labels), list(task.names), min_purity, images)
    return kind(task=task, split=split, labels=classes, **more)  # type: ignore[arg-type]
