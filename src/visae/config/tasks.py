"""The tasks there are, and the sections of those whose readout is a file of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visae.config.fields import setting

Unit = Literal["patch", "picture", "row"]


@dataclass(frozen=True)
class TaskKind:
    """A member: all that is known of a task before it is opened.

    Attributes
    ----------
    opened_by
        Module and class, `visae.tasks.segmentation:Segmentation`.
    unit
        What an answer is given for; latents and directions of classes are chosen by it.
    target, other
        What an edit is about and what should stay as it is, in the words of figures.
    head
        The head that the workflow trains for it; without one its readout is a file that the study names.
    given
        Whether it reads given activations, after which there is no network.
    """

    opened_by: str
    unit: Unit
    target: str
    other: str
    head: str = ""
    given: bool = False


TASKS: dict[str, TaskKind] = {
    "segmentation": TaskKind(
        "visae.tasks.segmentation:Segmentation", "patch", "edited patches", "all other patches", head="segmentation"
    ),
    "classification": TaskKind(
        "visae.tasks.classification:Classification", "picture", "own pictures", "other classes' pictures", head="probe"
    ),
    "zero_shot": TaskKind("visae.tasks.zero_shot:ZeroShot", "picture", "own pictures", "other classes' pictures"),
    "readout": TaskKind(
        "visae.tasks.readout:Readout", "row", "the class's outputs in the list", "the rest of the list", given=True
    ),
}
"""All tasks. To add one, write its module and name it here."""


@dataclass(frozen=True, kw_only=True)
class ZeroShotSettings:
    """Classification by class vectors, such as CLIP's text embeddings, beside the model's own projection."""

    dataset: str = setting("Data set with labels.")
    vectors: str = setting(
        "safetensors file with `vectors` (n_classes, d), and in its metadata `names`, a JSON list of the data set's "
        "class names, one a row; `logit_scale` and `architecture` where they are known."
    )

    @property
    def file(self) -> str:
        """File of the readout."""
        return self.vectors


@dataclass(frozen=True, kw_only=True)
class ReadoutSettings:
    """Any linear readout of given activations, such as a recommender's items: what comes first for a row."""

    dataset: str = setting("Data set of kind `activations` or `users`.")
    weights: str | None = setting(
        "safetensors file with `weight` (n_outputs, d), and in its metadata `names`, a JSON list, one an output, and "
        "`classes`, a JSON list of the class of each; without `classes` each output is its own. Left out for `users`, "
        "which are made with a readout of their own.",
        None,
    )
    first: int = setting("Outputs of the list that is compared before and after.", 10, minimum=1)

    @property
    def file(self) -> str | None:
        """File of the readout."""
        return self.weights


@dataclass(frozen=True, kw_only=True)
class AddedTaskSettings:
    """A task that you added, by its name in `visae.config.tasks.TASKS`."""

    dataset: str = setting("Data set that it is measured on.")
    file: str | None = setting("File of its readout; left out where the workflow trains its head.", None)
