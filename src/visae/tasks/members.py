"""All tasks. To add one, write its module and name it here."""

from __future__ import annotations

from collections.abc import Callable

import torch

from visae.errors import ConfigError
from visae.tasks.classification import Classification
from visae.tasks.files import TaskFiles
from visae.tasks.readout import Readout
from visae.tasks.segmentation import Segmentation
from visae.tasks.task import Task
from visae.tasks.zero_shot import ZeroShot
from visae.vision.model import VisionModel

Opening = Callable[[TaskFiles, VisionModel, int, int], Task]
"""Opens a task from its files, a model, the edited layer and the pictures in a batch."""

WITH_MODEL: dict[str, Opening] = {
    Segmentation.name: Segmentation.open,
    Classification.name: Classification.open,
    ZeroShot.name: ZeroShot.open,
}
GIVEN: dict[str, Callable[[TaskFiles, torch.device, int], Task]] = {Readout.name: Readout.open}
"""Tasks of given activations, after which there is no network."""


def open_task(
    name: str, files: TaskFiles, model: VisionModel | None, layer: int, device: torch.device, batch_size: int = 32
) -> Task:
    """Open a task by its name.

    Parameters
    ----------
    model
        The network; None for given activations.
    layer
        Whose output is edited.

    Raises
    ------
    ConfigError
        If there is no such task, or it needs a model.
    """
    if name in GIVEN:
        return GIVEN[name](files, device, batch_size)
    if name not in WITH_MODEL:
        raise ConfigError(f"task: {name!r} is none of {', '.join([*WITH_MODEL, *GIVEN])}")
    if model is None:
        raise ConfigError(f"task: {name}: it needs a model; given activations have readout alone")
    return WITH_MODEL[name](files, model, layer, batch_size)
