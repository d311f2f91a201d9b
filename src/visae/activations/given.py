"""Stores of activations that visae did not compute: arrays in memory, and folders of a user's Parquet files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from visae.activations.given_rows import GivenFile
from visae.activations.manifest import image_ranges, read_manifest, write_manifest
from visae.activations.schema import ShardHeader, ShardRecord, TokenChoice, shard_name
from visae.activations.writer import ShardWriter
from visae.config.settings import ActivationsSettings, UsersSettings
from visae.data.index import SCHEMA
from visae.data.split_names import missing_splits
from visae.data.walks import kind_of_file
from visae.errors import StoreError
from visae.files import atomic_path, file_sha256, text_sha256, write_json, write_text
from visae.notices import Notice, as_plain, log_notices
from visae.provenance import Provenance

SPLITS = ("train", "val", "test")
# Left out, these hold vectors perhaps.
_MISSED = (".parquet files", ".pq files", ".parq files", ".arrow files", ".feather files")


@dataclass(frozen=True)
class _Given:
    """A folder's files and the user's ids in them, by split; pictures by final split; what all rows share."""

    files: dict[str, list[GivenFile]]
    ids: dict[str, list[np.ndarray]]
    splits: dict[str, int]
    choice: TokenChoice
    d_model: int


def write_store(
    folder: Path,
    activations: np.ndarray | torch.Tensor,
    tokens: list[int],
    splits: dict[str, int],
    layer: int = 0,
    grid: tuple[int, int] | None = None,
    dtype: str = "float32",
    shards: int = 1,
) -> Path:
    """Write an array as a store, such as vectors from elsewhere; returns the manifest's path.

    Parameters
    ----------
    folder
        Where to write.
    activations
        (n_images, n_tokens, d_model).
    tokens
        Token ids of every picture (-1 for [CLS], patches from 0).
    splits
        Split name to number of pictures, in picture order.
    """
    activations = torch.as_tensor(activations)
    n_images, _, d_model = activations.shape
    if sum(splits.values()) != n_images:
        raise StoreError(f"splits hold {sum(splits.values())} pictures, the array {n_images}")
    fingerprint = text_sha256(f"{tuple(activations.shape)} {float(activations.double().sum())}")
    shape = grid or (1, sum(token >= 0 for token in tokens))
    records = []
    for shard, first, stop in image_ranges(n_images, shards):
        choice = TokenChoice(tuple(tokens))
        header = ShardHeader(fingerprint, layer, "residual", d_model, dtype, choice, shape, first, stop - first)
        batches = (activations[start : min(start + 256, stop)] for start in range(first, stop, 256))
        records.append(_written(folder / shard_name(shard), header, batches))
    return write_manifest(folder, header, records, _bounds(splits))


def adopt_activations(settings: ActivationsSettings, manifest: Path) -> None:
    """Make a store of a user's own vectors.

    A folder with a visae manifest is linked to, not copied. Other Parquet files are rewritten in the store's
    format, file by file, in flat memory.

    Parameters
    ----------
    settings
        The data set's section.
    manifest
        manifest.json to write; shards go beside it.

    Raises
    ------
    StoreError
        If there is nothing to read, or rows are missing, out of order, of unlike width or not finite.
    """
    root = Path(settings.root).expanduser().absolute()
    if (root / "manifest.json").is_file():
        _link(root, manifest.parent)
        return
    given = _read(settings, root)
    provenance = Provenance(settings, [], settings.seed, "cpu")
    files = [file for found in given.files.values() for file in found]
    counts = [len(ids) for found in given.ids.values() for ids in found]
    fingerprint = text_sha256(" ".join(file_sha256(file.path) for file in files))
    grid = (1, len(given.choice.tokens) - given.choice.n_prefix)
    records: list[ShardRecord] = []
    first = 0
    for file, n_images in zip(files, counts, strict=True):
        decided = fingerprint, 0, "residual", given.d_model, settings.dtype, given.choice, grid
        header = ShardHeader(*decided, first, n_images)
        records.append(_written(manifest.parent / shard_name(len(records)), header, _pictures(file, header)))
        first += n_images
    write_manifest(manifest.parent, header, records, _bounds(given.splits), provenance=provenance.record())


def index_given(settings: ActivationsSettings, index_path: Path, made: UsersSettings | None = None) -> None:
    """Write index.parquet and summary.json for given activations: a row a picture, its path naming the user's own id.

    Parameters
    ----------
    settings
        The data set's section.
    index_path
        Where to.
    made
        Section of a data set whose activations were made on the spot, as the summary shall say.

    Raises
    ------
    StoreError
        As `adopt_activations`.
    """
    root = Path(settings.root).expanduser().absolute()
    provenance = Provenance(made or settings, [], settings.seed, "cpu")
    notices, left_out = list[Notice](), list[dict[str, Any]]()
    if (root / "manifest.json").is_file():
        manifest = read_manifest(root / "manifest.json")
        splits = {name: stop - first for name, (first, stop) in manifest["splits"].items()}
        paths = [f"{root}:{image_id}" for image_id in range(manifest["n_images"])]
    else:
        given = _read(settings, root)
        splits, left_out = given.splits, _left_out(given, root)
        notices = _notices(given, left_out)
        paths = [
            f"{file.path}:{image_id}"
            for split, files in given.files.items()
            for file, ids in zip(files, given.ids[split], strict=True)
            for image_id in ids
        ]
    notices += missing_splits(splits)
    columns: dict[str, Any] = dict.fromkeys(SCHEMA)
    columns |= {"image_id": range(len(paths)), "path": paths}
    columns["split"] = [name for name, count in splits.items() for _ in range(count)]
    frame = pl.DataFrame({name: columns[name] for name in SCHEMA if columns[name] is not None})
    empty = [pl.lit(None, dtype=kind).alias(name) for name, kind in SCHEMA.items() if columns[name] is None]
    with atomic_path(index_path) as temporary:
        frame.with_columns(empty).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).write_parquet(
            temporary
        )
    counts = {split: {"n_images": n_images, "n_labelled": 0, "n_masked": 0} for split, n_images in splits.items()}
    summary: dict[str, Any] = {
        "kind": (made or settings).kind,
        "n_images": splits,
        "n_skipped": 0,
        "classes": [],
        "splits": counts,
    }
    summary |= {"left_out": left_out, "notices": as_plain(notices)}
    log_notices(index_path.parent.name, notices)
    write_json(index_path.with_name("summary.json"), {**summary, "provenance": provenance.record()})
    write_text(index_path.with_name("skipped.csv"), "path,reason\n")


def _splits(settings: ActivationsSettings, counts: dict[str, int]) -> dict[str, int]:
    """Pictures by split; of a nameless one the last share becomes val."""
    if list(counts) != [""]:
        return counts
    val = round(counts[""] * settings.val_share)
    return {name: count for name, count in {"train": counts[""] - val, "val": val}.items() if count}


def _written(path: Path, header: ShardHeader, batches: Iterator[torch.Tensor]) -> ShardRecord:
    with ShardWriter(path, header) as writer:
        for batch in batches:
            writer.add(batch)
    record = ShardRecord.read_whole(path, header.fingerprint)
    assert record is not None
    return record


def _bounds(splits: dict[str, int]) -> dict[str, tuple[int, int]]:
    """First and stop id of splits that follow one another."""
    bounds, start = {}, 0
    for name, count in splits.items():
        bounds[name] = (start, start + count)
        start += count
    return bounds


def _link(root: Path, folder: Path) -> None:
    """Link to a store that lies elsewhere."""
    manifest = read_manifest(root / "manifest.json")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*(shard["file"] for shard in manifest["shards"]), "manifest.json"):
        if Path(name).name != name or not (root / name).is_file():
            raise StoreError(f"{root / name} is missing; the manifest beside it names it")
        temporary = folder / f".{name}.link"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(root / name)
        os.replace(temporary, folder / name)


def _files(root: Path) -> dict[str, list[Path]]:
    """Parquet files by split; of one nameless split where the folder has no subfolders of that name."""
    if not root.is_dir():
        raise StoreError(f"datasets: root: {root}: there is no such folder; set root to where the Parquet files are")
    found = {split: _parquet_files(root / split) for split in SPLITS if (root / split).is_dir()}
    found = found or {"": _parquet_files(root)}
    empty = [split for split, paths in found.items() if not paths]
    if empty or (found.keys() - {""} and "train" not in found):
        raise StoreError(f"{root / (empty or ['train'])[0]}: no Parquet files; see docs/store.md for what they hold")
    return found


def _parquet_files(folder: Path) -> list[Path]:
    """Parquet files in a folder, but for hidden ones, such as macOS writes beside each file."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def _left_out(given: _Given, root: Path) -> list[dict[str, Any]]:
    """Files below the folder that are not read, counted by suffix."""
    read = {file.path for found in given.files.values() for file in found}
    others = sorted(path for path in root.rglob("*") if path.is_file() and path not in read)
    counts = Counter(kind_of_file(path.name) for path in others)
    examples = {kind_of_file(path.name): str(path) for path in reversed(others)}
    return [{"what": what, "n_files": n_files, "example": examples[what]} for what, n_files in counts.items()]


def _read(settings: ActivationsSettings, root: Path) -> _Given:
    """Read the keys of all files, and of activations the first rows: what is wrong stops before anything is written."""
    files = {split: [GivenFile.open(path) for path in paths] for split, paths in _files(root).items()}
    first = next(file for found in files.values() for file in found)
    choice, d_model = first.tokens(), first.d_model()
    for file in (file for found in files.values() for file in found):
        if file.d_model() != d_model:
            raise StoreError(f"{file.path}: activations of {file.d_model()} values, elsewhere of {d_model}")
    ids = {split: [file.picture_ids(choice) for file in found] for split, found in files.items()}
    splits = _splits(settings, {split: sum(map(len, found)) for split, found in ids.items()})
    return _Given(files, ids, splits, choice, d_model)


def _pictures(file: GivenFile, header: ShardHeader) -> Iterator[torch.Tensor]:
    """Whole pictures of a file (n_images, n_rows, d_model), in its order."""
    left = torch.empty(0, header.d_model)
    for values in file.activations(header.d_model, header.dtype):
        rows = torch.cat([left.to(values.dtype), values])
        whole = len(rows) // header.choice.n_rows * header.choice.n_rows
        if whole:
            yield rows[:whole].view(-1, header.choice.n_rows, header.d_model)
        left = rows[whole:]


def _notices(given: _Given, left_out: list[dict[str, Any]]) -> list[Notice]:
    """What a person should know of the files before anything is trained on them."""
    notices = []
    files = [file for found in given.files.values() for file in found]
    others = sorted({name for file in files for name in file.others})
    if others:
        notices.append(Notice("note", f"columns that are not read: {', '.join(others)}"))
    for entry in left_out:
        level: Literal["note", "warning"] = "warning" if entry["what"] in _MISSED else "note"
        notices.append(Notice(level, f"{entry['n_files']} {entry['what']} are left out, such as {entry['example']}"))
    ids = {split: np.concatenate(found) for split, found in given.ids.items()}
    for split in ids.keys() & {"val", "test"}:
        n_shared = len(np.intersect1d(ids["train"], ids[split]))
        if n_shared:
            text = f"{n_shared} values of image_id are in train and in {split}: if they name the same things, and not "
            notices.append(Notice("note", f"{text}each split its own, what is measured on {split} is too good"))
    return notices
