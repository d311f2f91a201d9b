"""The index: one row a picture, each decoded once, with its split, label, mask and hash."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars

from visae.config.settings import (
    AnyDataset,
    DatasetSettings,
    ImageFolderSettings,
    ScenesSettings,
    SegmentationFolderSettings,
)
from visae.data.folders import Listing, Picture, class_list_file, list_image_folder, list_segmentation_folder
from visae.data.images import open_image, read_mask
from visae.data.scenes import CLASSES, make_scenes
from visae.errors import DataError
from visae.files import atomic_path, file_sha256, read_json, write_json
from visae.progress import progress_bar
from visae.provenance import Provenance

SCHEMA = {
    "image_id": polars.Int32,
    "path": polars.String,
    "split": polars.String,
    "label": polars.Int32,
    "label_name": polars.String,
    "mask_path": polars.String,
    "width": polars.Int32,
    "height": polars.Int32,
    "sha256": polars.String,
}
_SPLIT_ORDER = ("train", "val", "test")
_CHUNK = 64  # pictures handed to a thread at once
_NAMED = 5  # files named in an error


@dataclass(frozen=True)
class _Checked:
    """What decoding a picture told: its size and hash, or why it or its mask cannot be used."""

    width: int = 0
    height: int = 0
    sha256: str = ""
    unreadable: str = ""
    mask_problem: str = ""


def build_index(settings: AnyDataset, index_path: str | Path, seed: int = 0) -> None:
    """Write index.parquet, and skipped.csv and summary.json beside it.

    Parameters
    ----------
    settings
        Any kind of data set but `union`, which has no pictures of its own.
    index_path
        Where to. Pictures of `scenes` are made beside it, below `pictures`.
    seed
        The global seed; the data set's own is added.

    Raises
    ------
    DataError
        If folders, classes or masks are missing or wrong, or too many pictures are unreadable.
    """
    index_path = Path(index_path)
    try:
        _build(settings, index_path, settings.seed + seed)
    except DataError as error:
        raise DataError(f"datasets: {index_path.parent.name}: {error}") from error


def read_index(path: str | Path) -> polars.DataFrame:
    """Read an index; its paths are absolute then, wherever the results were moved to."""
    prefix = f"{Path(path).absolute().parent.as_posix()}/"
    made_absolute = [
        polars.when(polars.col(name).str.starts_with("/"))
        .then(polars.col(name))
        .otherwise(polars.lit(prefix) + polars.col(name))
        .alias(name)
        for name in ("path", "mask_path")
    ]
    return polars.read_parquet(path).with_columns(made_absolute)


def read_classes(index_path: str | Path) -> dict[int, str]:
    """Read the class names by id from the summary beside an index; empty where there are no labels."""
    summary = read_json(Path(index_path).with_name("summary.json"))
    return {entry["id"]: entry["name"] for entry in summary["classes"]}


def _build(settings: AnyDataset, index_path: Path, seed: int) -> None:
    sources = [class_list_file(settings.root)] if isinstance(settings, SegmentationFolderSettings) else []
    provenance = Provenance(settings, sources, seed, "cpu")
    listing = _listed(settings, index_path, seed)
    pictures = sorted(listing.pictures, key=lambda picture: (_split_rank(picture.split), picture.relative))
    checked = list(_checked(pictures, set(listing.classes)))
    skipped = [
        (picture, check.unreadable) for picture, check in zip(pictures, checked, strict=True) if check.unreadable
    ]
    _write_skipped(index_path.with_name("skipped.csv"), skipped)
    _refuse(
        settings, index_path, len(pictures), skipped, [check.mask_problem for check in checked if check.mask_problem]
    )
    # Made pictures lie beside the index and move with it.
    base = index_path.parent.absolute() if isinstance(settings, ScenesSettings) else None
    usable = [pair for pair in zip(pictures, checked, strict=True) if not pair[1].unreadable]
    frame = _frame(usable, base)
    with atomic_path(index_path) as temporary:
        frame.write_parquet(temporary)
    summary = {
        "kind": settings.kind,
        "n_images": Counter(frame["split"].to_list()),
        "n_skipped": len(skipped),
        "n_shared_between_splits": _shared_between_splits(frame),
        "classes": [{"id": number, "name": name} for number, name in sorted(listing.classes.items())],
        "index_sha256": file_sha256(index_path),
        "provenance": provenance.record(),
    }
    write_json(index_path.with_name("summary.json"), summary)


def _listed(settings: AnyDataset, index_path: Path, seed: int) -> Listing:
    if isinstance(settings, ScenesSettings):
        folder = index_path.parent.absolute() / "pictures"
        make_scenes(settings, folder, seed)
        return _list_scenes(folder)
    if isinstance(settings, ImageFolderSettings):
        return list_image_folder(settings, seed)
    if isinstance(settings, SegmentationFolderSettings):
        return list_segmentation_folder(settings)
    raise DataError(f"kind: {settings.kind} has no pictures of its own; index its members instead")


def _list_scenes(folder: Path) -> Listing:
    """List made pictures from their causes, so that image ids are those of causes.parquet."""
    numbers = {name: number for number, name in CLASSES.items()}
    causes = polars.read_parquet(folder / "causes.parquet").filter("is_largest").sort("image_id")
    pictures = []
    for path, split, texture in causes.select("path", "split", "texture").iter_rows():
        mask = folder / path.replace("images/", "annotations/", 1).replace(".jpg", ".png")
        pictures.append(Picture(folder / path, path, split, numbers[texture], texture, mask))
    return Listing(pictures, CLASSES)


def _split_rank(split: str) -> tuple[int, str]:
    return (_SPLIT_ORDER.index(split) if split in _SPLIT_ORDER else len(_SPLIT_ORDER), split)


def _checked(pictures: list[Picture], class_ids: set[int]) -> Iterator[_Checked]:
    """Decode all pictures in order; Pillow decodes and hashlib hashes outside Python's lock, so threads do."""
    allowed = np.zeros(max(class_ids, default=0) + 1, dtype=bool)
    allowed[[0, *class_ids]] = True
    chunks = [pictures[start : start + _CHUNK] for start in range(0, len(pictures), _CHUNK)]

    def check(chunk: list[Picture]) -> list[_Checked]:
        return [_check(picture, allowed) for picture in chunk]

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar(len(pictures), "reading", "pictures") as bar:
        for results in pool.map(check, chunks):
            yield from results
            bar.update(len(results))


def _check(picture: Picture, allowed: np.ndarray) -> _Checked:
    try:
        str(picture.file).encode()
    except UnicodeEncodeError:
        return _Checked(unreadable="its name is not UTF-8; rename it")
    try:
        width, height = open_image(picture.file).size
    except DataError as error:
        return _Checked(unreadable=str(error).removeprefix(f"{picture.file}: "))
    problem = _mask_problem(picture.mask, (width, height), allowed) if picture.mask else ""
    return _Checked(width, height, file_sha256(picture.file), mask_problem=problem)


def _mask_problem(path: Path, size: tuple[int, int], allowed: np.ndarray) -> str:
    try:
        mask = read_mask(path, size)
    except DataError as error:
        return str(error)
    lowest, highest = int(mask.min()), int(mask.max())
    if lowest >= 0 and highest < len(allowed) and allowed[mask].all():
        return ""
    foreign = sorted(set(np.unique(mask).tolist()) - set(np.flatnonzero(allowed).tolist()))
    return f"{path}: class ids {', '.join(map(str, foreign[:_NAMED]))} are not in the list of classes (0 = unlabelled)"


def _refuse(
    settings: DatasetSettings,
    index_path: Path,
    n_found: int,
    skipped: list[tuple[Picture, str]],
    mask_problems: list[str],
) -> None:
    """Raise DataError where masks are wrong or too much is unreadable."""
    if mask_problems:
        more = f" (and {len(mask_problems) - _NAMED} more)" if len(mask_problems) > _NAMED else ""
        raise DataError(f"{len(mask_problems)} masks are wrong: {'; '.join(mask_problems[:_NAMED])}{more}")
    if len(skipped) > settings.max_unreadable * n_found or len(skipped) == n_found:
        first = "; ".join(f"{picture.file} ({reason})" for picture, reason in skipped[:_NAMED])
        raise DataError(
            f"{len(skipped)} of {n_found} pictures are unreadable, more than max_unreadable: {settings.max_unreadable} "
            f"allows; all are listed in {index_path.with_name('skipped.csv')}, first {first}"
        )


def _write_skipped(path: Path, skipped: list[tuple[Picture, str]]) -> None:
    rows = {
        "path": [str(picture.file).encode(errors="backslashreplace").decode() for picture, _ in skipped],
        "reason": [reason.encode(errors="backslashreplace").decode() for _, reason in skipped],
    }
    with atomic_path(path) as temporary:
        polars.DataFrame(rows, schema={"path": polars.String, "reason": polars.String}).write_csv(temporary)


def _frame(usable: list[tuple[Picture, _Checked]], base: Path | None) -> polars.DataFrame:
    """Table of the index; paths relative to `base` where it is given."""

    def stored(path: Path | None) -> str | None:
        if path is None or base is None:
            return None if path is None else path.as_posix()
        return path.relative_to(base).as_posix()

    columns = {
        "image_id": range(len(usable)),
        "path": [stored(picture.file) for picture, _ in usable],
        "split": [picture.split for picture, _ in usable],
        "label": [picture.label for picture, _ in usable],
        "label_name": [picture.label_name for picture, _ in usable],
        "mask_path": [stored(picture.mask) for picture, _ in usable],
        "width": [check.width for _, check in usable],
        "height": [check.height for _, check in usable],
        "sha256": [check.sha256 for _, check in usable],
    }
    return polars.DataFrame(columns, schema=SCHEMA)


def _shared_between_splits(frame: polars.DataFrame) -> int:
    """Pictures whose very bytes are in more than one split: what would make a measurement too good."""
    return int(frame.filter(polars.col("split").n_unique().over("sha256") > 1).height)
