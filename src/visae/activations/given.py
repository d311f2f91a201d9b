"""Stores of activations that visae did not compute: arrays in memory, and folders of a user's Parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from visae.activations.manifest import image_ranges, read_manifest, write_manifest
from visae.activations.schema import DTYPES, ShardHeader, ShardRecord, TokenChoice, as_tensor, shard_name
from visae.activations.writer import ShardWriter
from visae.config.settings import ActivationsSettings, UsersSettings
from visae.data.index import SCHEMA
from visae.errors import StoreError
from visae.files import atomic_path, file_sha256, text_sha256, write_json, write_text
from visae.provenance import Provenance

# Columns image_id and token, and activations (rows, d_model).
_Rows = tuple[np.ndarray, np.ndarray, torch.Tensor]
SPLITS = ("train", "val", "test")
_COLUMNS = ("image_id", "token", "activation")


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
    files = _files(root)
    provenance = Provenance(settings, [], settings.seed, "cpu")
    choice, d_model = _layout(next(path for paths in files.values() for path in paths))
    counts = {split: [_n_images(path, choice) for path in paths] for split, paths in files.items()}
    fingerprint = text_sha256(" ".join(file_sha256(path) for paths in files.values() for path in paths))
    grid = (1, len(choice.tokens) - choice.n_prefix)
    records: list[ShardRecord] = []
    first = 0
    for split, paths in files.items():
        for path, n_images in zip(paths, counts[split], strict=True):
            header = ShardHeader(fingerprint, 0, "residual", d_model, settings.dtype, choice, grid, first, n_images)
            records.append(_written(manifest.parent / shard_name(len(records)), header, _pictures(path, header)))
            first += n_images
    splits = _splits(settings, {split: sum(numbers) for split, numbers in counts.items()})
    write_manifest(manifest.parent, header, records, _bounds(splits), provenance=provenance.record())


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
    if (root / "manifest.json").is_file():
        manifest = read_manifest(root / "manifest.json")
        splits = {name: stop - first for name, (first, stop) in manifest["splits"].items()}
        paths = [f"{root}:{image_id}" for image_id in range(manifest["n_images"])]
    else:
        files = _files(root)
        choice, _ = _layout(next(path for found in files.values() for path in found))
        ids = {
            path: pq.read_table(path, columns=["image_id"])["image_id"].to_numpy()[:: choice.n_rows]
            for found in files.values()
            for path in found
        }
        paths = [f"{path}:{image_id}" for path, found in ids.items() for image_id in found]
        splits = _splits(settings, {name: sum(len(ids[path]) for path in found) for name, found in files.items()})
    columns: dict[str, Any] = dict.fromkeys(SCHEMA)
    columns |= {"image_id": range(len(paths)), "path": paths}
    columns["split"] = [name for name, count in splits.items() for _ in range(count)]
    frame = pl.DataFrame({name: columns[name] for name in SCHEMA if columns[name] is not None})
    empty = [pl.lit(None, dtype=kind).alias(name) for name, kind in SCHEMA.items() if columns[name] is None]
    with atomic_path(index_path) as temporary:
        frame.with_columns(empty).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).write_parquet(
            temporary
        )
    summary: dict[str, Any] = {"kind": (made or settings).kind, "n_images": splits, "n_skipped": 0, "classes": []}
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
    """Parquet files by split; of one nameless split where the folder has no subfolders."""
    if not root.is_dir():
        raise StoreError(f"datasets: root: {root}: there is no such folder; set root to where the Parquet files are")
    found = {split: sorted((root / split).glob("*.parquet")) for split in SPLITS if (root / split).is_dir()}
    found = found or {"": sorted(root.glob("*.parquet"))}
    empty = [split for split, paths in found.items() if not paths]
    if empty or (found.keys() - {""} and "train" not in found):
        raise StoreError(f"{root / (empty or ['train'])[0]}: no Parquet files; see docs/store.md for what they hold")
    return found


def _layout(path: Path) -> tuple[TokenChoice, int]:
    """Tokens of a picture and the dimension of an activation, from the first picture of a file."""
    batch = next(_batches(path), None)
    if batch is None:
        raise StoreError(f"{path}: no rows")
    ids, tokens, values = batch
    return TokenChoice(tuple(tokens[ids == ids[0]].tolist())), values.shape[1]


def _n_images(path: Path, choice: TokenChoice) -> int:
    rows = pq.read_metadata(path).num_rows
    if rows % choice.n_rows:
        raise StoreError(
            f"{path}: {rows} rows are no multiple of {choice.n_rows}, the tokens of the first picture; every picture "
            "has to have the same tokens, in the same order"
        )
    return rows // choice.n_rows


def _pictures(path: Path, header: ShardHeader) -> Iterator[torch.Tensor]:
    """Whole pictures of a file, in its order, checked row by row."""
    n_rows, left = header.choice.n_rows, None
    for batch in _batches(path):
        if batch[2].shape[1] != header.d_model:
            raise StoreError(f"{path}: activations of {batch[2].shape[1]} values, elsewhere of {header.d_model}")
        ids, tokens, values = batch if left is None else _joined(left, batch)
        whole = len(ids) // n_rows * n_rows
        pictures, expected = ids[:whole].reshape(-1, n_rows), np.array(header.choice.tokens)
        wrong = (pictures != pictures[:, :1]).any(axis=1) | (tokens[:whole].reshape(-1, n_rows) != expected).any(axis=1)
        if wrong.any():
            raise StoreError(
                f"{path}: image_id {pictures[wrong.argmax(), 0]}: its rows are not together, or its tokens are not "
                "those of the first picture; sort by image_id and token"
            )
        yield values[:whole].view(-1, n_rows, header.d_model)
        left = ids[whole:], tokens[whole:], values[whole:]


def _joined(first: _Rows, second: _Rows) -> _Rows:
    ids, tokens = (np.concatenate([first[column], second[column]]) for column in (0, 1))
    return ids, tokens, torch.cat([first[2], second[2]])


def _batches(path: Path) -> Iterator[_Rows]:
    """Columns image_id, token (0 where there is none) and activation (rows, d_model) of a file, in pieces."""
    try:
        file = pq.ParquetFile(path)
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise StoreError(f"{path}: not a whole Parquet file ({error})") from error
    names = file.schema_arrow.names
    missing = [name for name in ("image_id", "activation") if name not in names]
    if missing:
        raise StoreError(f"{path}: no column {missing[0]!r}; it has {', '.join(names)}")
    for batch in file.iter_batches(8192, columns=[name for name in _COLUMNS if name in names]):
        ids = batch["image_id"].to_numpy()
        tokens = batch["token"].to_numpy() if "token" in names else np.zeros(len(ids), dtype=np.int16)
        yield ids, tokens, _values(batch["activation"], path)


def _values(column: pa.Array, path: Path) -> torch.Tensor:
    """Activations (rows, d_model) of a column of lists of floats, or of a shard's fixed-size binary."""
    kind: Any = column.type
    if column.null_count:
        raise StoreError(f"{path}: column 'activation' has {column.null_count} empty rows")
    if pa.types.is_fixed_size_binary(kind):
        dtype = ShardHeader.read(path).dtype
        return as_tensor(column, kind.byte_width // DTYPES[dtype].itemsize, dtype).clone()
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise StoreError(f"{path}: column 'activation' is {kind}; it has to hold lists of floats")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    widths = np.unique(column.value_lengths().to_numpy()) if len(column) else np.array([0])
    if len(widths) != 1 or flat.dtype.kind != "f":
        raise StoreError(f"{path}: column 'activation' has to hold lists of floats, all of one length")
    return torch.from_numpy(flat.astype(np.float32)).view(len(column), -1)
