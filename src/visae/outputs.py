"""Places that results are to be written to, looked at before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from visae.errors import ConfigError


def check_folder(folder: Path) -> None:
    """Refuse a folder that results cannot be written to.

    Raises
    ------
    ConfigError
        If it or one above it is a file, or may not be written.
    """
    there = next(above for above in (folder, *folder.absolute().parents) if above.exists() or above.is_symlink())
    if not there.is_dir():
        raise ConfigError(f"output: {there} is a file; give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"output: {there} cannot be written to; give a folder that can")
