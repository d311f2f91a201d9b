"""Watching training elsewhere: TensorBoard and Weights & Biases, both optional, neither with any part in the result."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from visae.errors import ConfigError
from visae.files import write_text


class Logger(Protocol):
    """Takes rows of numbers."""

    def log(self, step: int, row: dict[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in a folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("loggers: tensorboard: not installed; pip install 'visae[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, row: dict[str, float]) -> None:
        """Take the numbers of a step."""
        for key, value in row.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `visae`; who is logged in, and where, is wandb's own affair.

    Training that was killed goes on in the same run: its id is kept in the folder until the run is finished.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("loggers: wandb: not installed; pip install 'visae[wandb]'") from error
        folder.mkdir(parents=True, exist_ok=True)
        self._kept_id = folder / "wandb-run-id"
        if not self._kept_id.is_file():
            write_text(self._kept_id, secrets.token_hex(8))
        self._run = wandb.init(
            project="visae",
            name=name,
            config=settings,
            dir=str(folder),
            reinit="create_new",
            id=self._kept_id.read_text(),
            resume="allow",
        )

    def log(self, step: int, row: dict[str, float]) -> None:
        """Take the numbers of a step."""
        self._run.log(row, step=step)

    def close(self) -> None:
        """Write what is left; the next training of that name is another run."""
        self._run.finish()
        self._kept_id.unlink()


_KINDS: dict[str, Callable[[Path, str, dict[str, Any]], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def opened(names: list[str], folder: Path, name: str, settings: dict[str, Any]) -> list[Logger]:
    """Loggers by their names in the configuration.

    Raises
    ------
    ConfigError
        If a name is unknown or its package is missing.
    """
    unknown = sorted(set(names) - set(_KINDS))
    if unknown:
        raise ConfigError(f"loggers: {unknown[0]!r} is none of {', '.join(_KINDS)}")
    return [_KINDS[kind](folder, name, settings) for kind in names]
