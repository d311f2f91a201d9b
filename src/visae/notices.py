"""What is odd about a data set or a model, and stops nothing: said when it is read, and kept beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from visae.files import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """One line that a person should have read.

    Attributes
    ----------
    level
        `warning`: numbers may be wrong because of it; `note`: good to know.
    text
        What was found, where, and what to do if it is not meant.
    """

    level: Literal["warning", "note"]
    text: str


def log_notices(where: str, notices: Iterable[Notice]) -> None:
    """Log each notice with the place that it is about."""
    for notice in notices:
        level = logging.WARNING if notice.level == "warning" else logging.INFO
        logger.log(level, "%s: %s: %s", where, notice.level, notice.text)


def repeat_warnings(paths: Iterable[str | Path]) -> None:
    """Log again what is wrong with the data sets whose indices or activations are among these paths.

    A job that measures on a data set cannot know that its numbers are too good; whoever reads its log should.
    """
    for folder in dict.fromkeys(_dataset_folder(Path(path)) for path in paths):
        if folder and (folder / "index.parquet").is_file() and (folder / "summary.json").is_file():
            kept = from_plain(read_json(folder / "summary.json").get("notices", ()))
            log_notices(folder.name, (notice for notice in kept if notice.level == "warning"))


def _dataset_folder(path: Path) -> Path | None:
    """Folder of the data set that a file is the index or the activations of, in a tree of results."""
    if path.name == "index.parquet":
        return path.parent
    if path.name == "manifest.json" and len(path.parts) > 4 and path.parents[3].name == "activations":
        return path.parents[4] / "datasets" / path.parents[2].name
    return None


def as_plain(notices: Iterable[Notice]) -> list[dict[str, Any]]:
    """Notices as summary.json and model.json keep them."""
    return [asdict(notice) for notice in notices]


def from_plain(kept: Iterable[dict[str, Any]]) -> list[Notice]:
    """Notices out of a summary.json or model.json."""
    return [Notice(**entry) for entry in kept]


def first_of(things: Iterable[object], most: int, between: str = ", ") -> str:
    """Name the first few of some things, and say how many there are beside them."""
    names = list(map(str, things))
    rest = len(names) - most
    return between.join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")
