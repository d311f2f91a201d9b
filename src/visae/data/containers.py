"""Find the files that hold many pictures each, tars and Parquet files, by the patterns of a study."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from visae.data.noticed import Noticed
from visae.data.pictures import in_order
from visae.data.walks import kind_of_file, may_be_missed
from visae.errors import DataError

_BRACES = re.compile(r"\{([^{}]*)\}")


def files_by_split(root: Path, patterns: Mapping[str, str], what: str) -> dict[str, list[Path]]:
    """Absolute paths of the files that patterns name, sorted, by split in its order.

    Parameters
    ----------
    patterns
        By split, relative to `root`; braces are expanded as a shell does. Of a split without a name, `root` is at fault
        where there is none.
    what
        What the files are called in messages, in the singular.

    Raises
    ------
    DataError
        If a pattern names none, or a file is in two splits.
    """
    found = {split: _matching(root, patterns[split], split, what) for split in in_order(patterns)}
    by_file: dict[Path, str] = {}
    for split, files in found.items():
        for file in files:
            if file in by_file:
                raise DataError(f"splits: {file} is in {by_file[file]} and in {split}; leave it in one")
            by_file[file] = split
    return found


def place_of(split: str) -> str:
    """Key that a split's files come from, for messages."""
    return f"splits: {split}" if split else "root"


def count_beside(root: Path, files: Collection[Path], noticed: Noticed) -> None:
    """Count files below the folder that are not read."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(os.path.abspath(os.path.join(folder, name)))
            if path not in files:
                missed = may_be_missed(path.suffix.lower())
                noticed.leave_out(kind_of_file(name), str(path), level="warning" if missed else "note")


def _matching(root: Path, pattern: str, split: str, what: str) -> list[Path]:
    found: set[Path] = set()
    for one in _without_braces(pattern):
        paths = glob.glob(os.path.join(glob.escape(str(root)), one), recursive=True)
        if split and not paths:
            raise DataError(f"{place_of(split)}: {root / one}: there is no such {what}")
        found.update(Path(os.path.abspath(path)) for path in paths)
    if not found:
        raise DataError(f"{place_of(split)}: {root}: it has no {what}s")
    for path in sorted(found):
        if not path.is_file():
            raise DataError(f"{place_of(split)}: {path} is no file")
    return sorted(found)


def _without_braces(pattern: str) -> list[str]:
    """Expand `{0000..0012}` and `{a,b}`, as a shell does."""
    braces = _BRACES.search(pattern)
    if not braces:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if first > last:
            raise DataError(f"splits: {pattern}: {braces[0]} counts down; write the smaller number first")
        choices = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    rest = _without_braces(pattern[braces.end() :])
    return [pattern[: braces.start()] + choice + end for choice in choices for end in rest]
