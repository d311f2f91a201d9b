"""Opening a task by its name; which tasks there are is said in `visae.config.tasks`."""

from __future__ import annotations

from importlib import import_module

import torch

from visae.config.tasks import TASKS
from visae.errors import ConfigError
from visae.tasks.files import TaskFiles
from visae.tasks.task import Task
from visae.vision.model import VisionModel


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
        If there is no such task, or it needs a model, or given activations.
    """
    if name not in TASKS:
        raise ConfigError(f"task: {name!r} is none of {', '.join(TASKS)}")
    kind = TASKS[name]
    module, _, member = kind.opened_by.partition(":")
    task = getattr(import_module(module), member)
    if kind.given:
        return task.open(files, device, batch_size)
    if model is None:
        raise ConfigError(f"task: {name}: it needs a model; given activations have readout alone")
    return task.open(files, model, layer, batch_size)
