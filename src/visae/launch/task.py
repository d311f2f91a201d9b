"""One task of a job array: the training of all SAEs that share a reading of the data."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.config.sections import from_plain, to_plain
from visae.config.settings import AnySae
from visae.files import text_sha256
from visae.work import Member


@dataclass(frozen=True)
class Task:
    """What to train, on what.

    Parameters
    ----------
    members
        SAEs that share a reading of the data; each one's result is left in its work folder.
    manifests, targets, device, seed, loggers, scratch
        As of `visae.sae.trainer.train`.
    """

    members: list[Member]
    manifests: list[Path]
    targets: list[Path]
    device: str
    seed: int
    loggers: list[str]
    scratch: str | None = None

    def to_text(self) -> str:
        """Return it as JSON."""
        members = [
            {"settings": to_plain(m.settings), "output": str(m.output), "work": str(m.work)} for m in self.members
        ]
        paths = {"manifests": [str(p) for p in self.manifests], "targets": [str(p) for p in self.targets]}
        rest = {"device": self.device, "seed": self.seed, "loggers": self.loggers, "scratch": self.scratch}
        return json.dumps({"members": members, **paths, **rest})

    @classmethod
    def from_text(cls, text: str) -> Task:
        """Read what `to_text` wrote."""
        plain: dict[str, Any] = json.loads(text)
        members = [
            Member(from_plain(AnySae, member["settings"]), Path(member["output"]), Path(member["work"]))
            for member in plain.pop("members")
        ]
        manifests, targets = ([Path(path) for path in plain.pop(key)] for key in ("manifests", "targets"))
        return cls(members, manifests, targets, **plain)

    @property
    def name(self) -> str:
        """Short name that tasks for the same results share."""
        return text_sha256(" ".join(sorted(str(member.work) for member in self.members)))[:16]


class Training:
    """What submitit calls on the node; requeued, it is called again and goes on from the newest checkpoints.

    Parameters
    ----------
    text
        A task's JSON.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self) -> None:
        """Train what is missing."""
        from visae.sae.sweep import train_missing  # imports torch, which the submitting process does without

        form = "%(asctime)s %(levelname)s %(message)s"
        logging.basicConfig(level=logging.INFO, format=form, datefmt="%H:%M:%S", stream=sys.stderr)
        logging.getLogger("submitit").propagate = False  # it has a handler of its own
        task = Task.from_text(self.text)
        more = (task.targets, task.loggers, task.scratch)
        train_missing(task.members, task.manifests, task.device, task.seed, *more)

    def checkpoint(self) -> Any:
        """Return what shall run after a requeue: the same. Checkpoints are written by the training itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
