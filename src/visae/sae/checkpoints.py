"""Checkpoints of a training run: whole or absent, two kept, and only of the very same run."""

from __future__ import annotations

import logging
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from visae.files import atomic_path, file_sha256, read_json, write_json, write_text

_KEPT = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after `step` steps.

    Parameters
    ----------
    step
        Steps done.
    tensors
        Weights, optimizer state and counters by name.
    rows
        Rows of metrics.parquet so far.
    """

    step: int
    tensors: dict[str, Tensor]
    rows: list[dict[str, Any]]


class Checkpoints:
    """The checkpoints of one run in one folder.

    A checkpoint is `step-XXXXXXXX.safetensors` and a JSON file beside it, which is written last and holds the
    hash of the first: what is torn or altered is found, and the one before is taken.

    Parameters
    ----------
    folder
        Where they lie.
    run
        Whatever must be the same for a run to be continued: settings, seed, data, shapes, code.
    """

    def __init__(self, folder: str | Path, run: dict[str, Any]) -> None:
        self.folder, self.run = Path(folder), run
        self._owner = secrets.token_hex(8)

    def take_over(self) -> None:
        """From here on this process writes them: an older one stops at its next checkpoint."""
        write_text(self.folder / "owner", self._owner)

    def stop_if_taken_over(self) -> None:
        """Exit where another process has taken the run over, or ended it."""
        owner = self.folder / "owner"
        if not owner.is_file() or owner.read_text() != self._owner:
            raise SystemExit(f"{self.folder}: another process has taken this run over; this one stops")

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then delete all but the newest two."""
        name = f"step-{checkpoint.step:08d}"
        tensors = self.folder / f"{name}.safetensors"
        # Gone first, so that the description never stands beside tensors it does not describe.
        tensors.with_suffix(".json").unlink(missing_ok=True)
        with atomic_path(tensors) as temporary:
            save_file({key: value.cpu().contiguous() for key, value in checkpoint.tensors.items()}, temporary)
        description = {
            "step": checkpoint.step,
            "run": self.run,
            "tensors_sha256": file_sha256(tensors),
            "rows": checkpoint.rows,
        }
        write_json(tensors.with_suffix(".json"), description)
        for old in self._descriptions()[_KEPT:]:
            old.unlink(missing_ok=True)
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """Newest whole checkpoint of this run; None where there is none. What is passed over is logged."""
        for path in self._descriptions():
            checkpoint = self._read(path)
            if checkpoint is not None:
                return checkpoint
        return None

    def clear(self) -> None:
        """Delete the folder: the run is complete, and a later one starts anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _descriptions(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.json"), reverse=True)

    def _read(self, path: Path) -> Checkpoint | None:
        tensors = path.with_suffix(".safetensors")
        try:
            description = read_json(path)
            run, step, rows = description["run"], int(description["step"]), description["rows"]
            if run != self.run:
                _log.warning("%s is of another run (%s differs) and is ignored", path, _difference(run, self.run))
                return None
            if file_sha256(tensors) != description["tensors_sha256"]:
                raise ValueError("its tensors are not those that it was written with")
            return Checkpoint(step, load_file(tensors), rows)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            _log.warning("%s is damaged (%s) and is passed over", path, error)
            return None


def _difference(left: dict[str, Any], right: dict[str, Any]) -> str:
    """Names of the entries in which two runs differ, nested ones with dots."""
    names = []
    for key in sorted(left.keys() | right.keys()):
        one, other = left.get(key), right.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{key}.{name}" for name in _difference(one, other).split(", ") if name]
        elif one != other:
            names.append(key)
    return ", ".join(names)
