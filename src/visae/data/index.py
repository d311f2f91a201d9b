"""The index: one row a picture, each looked at once, with its split, label, mask and hash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars
import pyarrow

from visae.config.settings import (
    AnyDataset,
    HuggingFaceSettings,
    ImageFolderSettings,
    ListedFolderSettings,
    MaskedSettings,
    ScenePairsSettings,
    ScenesSettings,
    SegmentationFolderSettings,
    TableSettings,
    WebDatasetSettings,
)
from visae.data.checks import checked_pictures
from visae.data.classes import class_list_file
from visae.data.dealing import group_name
from visae.data.folders import list_image_folder, list_segmentation_folder
from visae.data.huggingface import list_huggingface
from visae.data.listed import list_files, list_listed_folder
from visae.data.mask_files import MaskReading
from visae.data.paired import pairs_facts, pairs_of
from visae.data.pictures import Listing, Picture, existing
from visae.data.rows import COLUMNS, write_rows
from visae.data.scene_pairs import PAIR_CLASSES, made_pairs, make_scene_pairs
from visae.data.scenes import CLASSES, make_scenes
from visae.data.summary import log_summary, what_was_read
from visae.data.tables import list_table
from visae.data.tally import Tally
from visae.data.webdatasets import list_webdataset
from visae.errors import DataError
from visae.files import atomic_path, file_sha256, read_json, write_json
from visae.provenance import Provenance

# Not by polars.DataFrame(COLUMNS.empty_table()), which imports pandas for it.
SCHEMA = {field.name: polars.Int32() if pyarrow.types.is_int32(field.type) else polars.String() for field in COLUMNS}


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
    rows = polars.read_parquet(path)
    made_absolute = [
        polars.when(polars.col(name).str.starts_with("/"))
        .then(polars.col(name))
        .otherwise(polars.lit(prefix) + polars.col(name))
        .alias(name)
        for name in ("path", "mask_path", "region_path")
        if name in rows.columns  # an index of before there were pairs has no regions
    ]
    return rows.with_columns(made_absolute)


def read_classes(index_path: str | Path) -> dict[int, str]:
    """Read the class names by id from the summary beside an index; empty where there are no labels."""
    summary = read_json(Path(index_path).with_name("summary.json"))
    return {entry["id"]: entry["name"] for entry in summary["classes"]}


def read_groups(index_path: str | Path) -> dict[int, str]:
    """Read the group of every picture that has one; empty where no picture has."""
    index = polars.read_parquet(index_path)
    if "group" not in index.columns:  # written before there were groups
        return {}
    return dict(index.filter(polars.col("group").is_not_null()).select("image_id", "group").iter_rows())


def read_mask_reading(index_path: str | Path) -> MaskReading:
    """Read what the ids in a data set's masks mean, from the summary beside its index."""
    summary = read_json(Path(index_path).with_name("summary.json"))
    return MaskReading(
        tuple(summary.get("ignore_ids", ())), summary.get("zero_based", False), summary.get("mask_frame", "unknown")
    )


def _build(settings: AnyDataset, index_path: Path, seed: int) -> None:
    provenance = Provenance(settings, _small_files(settings), seed, "cpu")
    folder = index_path.parent.absolute() / "pictures"
    if isinstance(settings, ScenesSettings):
        make_scenes(settings, folder, seed)
        listing = Listing(_made_pictures(folder, settings.shortcut > 0), CLASSES)
    elif isinstance(settings, ScenePairsSettings):
        make_scene_pairs(settings, folder, seed)
        listing = Listing(made_pairs(folder), PAIR_CLASSES)
    else:
        listing = listed(settings, seed)
    # Made pictures lie beside the index and move with it.
    base = folder.parent if isinstance(settings, ScenesSettings | ScenePairsSettings) else None
    reading = mask_reading(settings)
    tally = Tally(reading, listing.noticed)
    skipped_path = index_path.with_name("skipped.csv")
    with atomic_path(index_path) as temporary:
        # The list of what was skipped is of use where the index is refused, most of all.
        with atomic_path(skipped_path) as temporary_skipped:
            checked = checked_pictures(listing, settings, reading)
            write_rows(checked, tally, temporary, temporary_skipped, base)
        tally.refuse(settings.max_unreadable, skipped_path)
        pairs = pairs_facts(pairs_of(read_index(temporary))) if tally.n_paired else []
    summary = {
        "kind": settings.kind,
        **what_was_read(listing, tally, index_path, settings, pairs),
        "ignore_ids": list(reading.ignore_ids),
        "zero_based": reading.zero_based,
        "mask_frame": reading.frame,
        "index_sha256": file_sha256(index_path),
        "provenance": provenance.record(),
    }
    write_json(index_path.with_name("summary.json"), summary)
    log_summary(index_path.parent.name, summary)


def mask_reading(settings: AnyDataset) -> MaskReading:
    """What the ids in a data set's masks mean, as its settings say."""
    if not isinstance(settings, MaskedSettings):
        return MaskReading()
    return MaskReading(tuple(settings.ignore_ids), settings.zero_based, settings.mask_frame)


def _small_files(settings: AnyDataset) -> list[Path]:
    """Files beside the pictures that decide the index."""
    if isinstance(settings, SegmentationFolderSettings):
        return [class_list_file(settings.root)]
    if isinstance(settings, ListedFolderSettings):
        return list_files(settings)
    found = [existing(settings.file, "file", folder=False)] if isinstance(settings, TableSettings) else []
    if isinstance(settings, TableSettings | WebDatasetSettings | HuggingFaceSettings) and settings.classes is not None:
        found.append(existing(settings.classes, "classes", folder=False))
    return found


def listed(settings: AnyDataset, seed: int) -> Listing:
    """List the pictures of a data set that is on disk already, undecoded; raises DataError as `build_index` does."""
    if isinstance(settings, ImageFolderSettings):
        return list_image_folder(settings, seed)
    if isinstance(settings, SegmentationFolderSettings):
        return list_segmentation_folder(settings)
    if isinstance(settings, ListedFolderSettings):
        return list_listed_folder(settings)
    if isinstance(settings, TableSettings):
        return list_table(settings, seed)
    if isinstance(settings, WebDatasetSettings):
        return list_webdataset(settings, seed)
    if isinstance(settings, HuggingFaceSettings):
        return list_huggingface(settings, seed)
    raise DataError(f"kind: {settings.kind} has no pictures of its own; index its members instead")


def _made_pictures(folder: Path, with_groups: bool) -> Iterator[Picture]:
    """List made pictures from their causes, so that image ids are those of causes.parquet."""
    numbers = {name: number for number, name in CLASSES.items()}
    causes = polars.read_parquet(folder / "causes.parquet").filter("is_largest").sort("image_id")
    for path, split, texture, background in causes.select("path", "split", "texture", "background").iter_rows():
        mask = path.replace("images/", "annotations/", 1).replace(".jpg", ".png")
        group = group_name(texture, background) if with_groups else None
        yield Picture(f"{folder}/{path}", split, numbers[texture], texture, f"{folder}/{mask}", group=group)
