"""Which files are the pictures of a concept, without opening any."""

from __future__ import annotations

from pathlib import Path

from visae.data.images import SUFFIXES
from visae.errors import DataError

FEWEST = 4
"""Pictures that each folder needs: two for either half."""


def concept_files(positives: Path, negatives: Path) -> dict[str, list[Path]]:
    """List the pictures of a concept's two folders by name.

    Parameters
    ----------
    positives, negatives
        Folder of pictures that show the concept, and of pictures that do not.

    Returns
    -------
    dict
        Files of `positives` and of `negatives`.

    Raises
    ------
    DataError
        If a folder is missing or has fewer than `FEWEST` pictures.
    """
    found = {}
    for key, folder in (("positives", positives), ("negatives", negatives)):
        if not folder.is_dir():
            raise DataError(f"{key}: {folder}: there is no such folder")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if len(files) < FEWEST:
            raise DataError(f"{key}: {folder}: {too_few(len(files))}")
        found[key] = files
    return found


def too_few(count: int, kind: str = "pictures") -> str:
    """Say that a folder has too few pictures, and how many are needed."""
    return f"{count} {kind}, {FEWEST} are needed and 20 are better"
