"""What was written beside an index."""

from pathlib import Path

from visae.config.settings import SegmentationFolderSettings
from visae.files import read_json


def segmentation_folder(root: Path | str, **options) -> SegmentationFolderSettings:
    return SegmentationFolderSettings(kind="segmentation_folder", root=str(root), **options)


def summary(index_path: Path) -> dict:
    return read_json(index_path.with_name("summary.json"))


def notices(index_path: Path) -> list[tuple[str, str]]:
    return [(entry["level"], entry["text"]) for entry in summary(index_path)["notices"]]


def said(index_path: Path, level: str = "") -> str:
    """All notices, or those of a level, as one text."""
    return "\n".join(text for each, text in notices(index_path) if each.startswith(level))
