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
    """Log again what is wrong with the data sets whose indices are among these paths.

    A job that measures on a data set cannot know that its numbers are too good; whoever reads its log should.
    """
    for path in map(Path, paths):
        summary = path.with_name("summary.json")
        if path.name == "index.parquet" and path.is_file() and summary.is_file():
            kept = from_plain(read_json(summary).get("notices", ()))
            log_notices(path.parent.name, (notice for notice in kept if notice.level == "warning"))


def as_plain(notices: Iterable[Notice]) -> list[dict[str, Any]]:
    """Notices as summary.json and model.json keep them."""
    return [asdict(notice) for notice in notices]


def from_plain(kept: Iterable[dict[str, Any]]) -> list[Notice]:
    """Notices out of a summary.json or model.json."""
    return [Notice(**entry) for entry in kept]
