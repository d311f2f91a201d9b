"""Opening an activation store: pictures in order, whole or by kind of token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from visae.activations.schema import FORMAT, ShardHeader, ShardRecord, as_array, shard_name
from visae.activations.writer import ShardWriter
from visae.errors import StoreError
from visae.files import read_json, text_sha256, write_json

Kinds = Literal["patches", "all", "class"]


class ActivationStore:
    """The activations of one data set at one layer of one model.

    Every picture has the same tokens in the same order, and pictures lie in the order of their ids, so any
    picture is found by arithmetic.

    Attributes
    ----------
    d_model
        Dimension of an activation.
    tokens
        int16 (n_tokens,) token ids of every picture: -1 for [CLS], -2, ... for registers, patches from 0.
    n_images
        Pictures in the store, ids 0 to n_images - 1.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.d_model: int = manifest["d_model"]
        self.dtype: str = manifest["dtype"]
        self.tokens = np.array(manifest["tokens"], dtype=np.int16)
        self.n_images: int = manifest["n_images"]
        self.grid: tuple[int, int] = tuple(manifest["grid"])
        self.splits: dict[str, range] = {name: range(*bounds) for name, bounds in manifest["splits"].items()}
        self.shards = [ShardRecord(**shard) for shard in manifest["shards"]]
        self.images_per_group: int = manifest["images_per_group"]
        self._open = threading.local()

    @classmethod
    def open(cls, manifest_path: str | Path) -> ActivationStore:
        """Open a store by its manifest.json.

        Raises
        ------
        StoreError
            If it is no manifest of a store, or a shard is missing or of another size.
        """
        manifest_path = Path(manifest_path)
        if not manifest_path.is_file():
            raise StoreError(f"{manifest_path}: no such manifest; make it with: snakemake {manifest_path}")
        manifest = read_json(manifest_path)
        if manifest.get("format") != FORMAT:
            raise StoreError(f"{manifest_path}: not the manifest of an activation store ({FORMAT})")
        store = cls(manifest_path.parent, manifest)
        for shard in store.shards:
            path = store.folder / shard.file
            if not path.is_file() or path.stat().st_size != shard.bytes:
                state = "is missing" if not path.is_file() else f"has {path.stat().st_size} bytes, not {shard.bytes}"
                raise StoreError(f"{path} {state}; make it again with: snakemake --force {manifest_path}")
        return store

    def image_ids(self, split: str) -> range:
        """Ids of a split's pictures.

        Raises
        ------
        StoreError
            If the store has no such split.
        """
        if split not in self.splits:
            raise StoreError(f"{self.folder}: no split {split!r}; it has {', '.join(self.splits)}")
        return self.splits[split]

    def token_slice(self, kinds: Kinds) -> slice:
        """Positions of a kind of token within a picture's rows."""
        n_prefix = int((self.tokens < 0).sum())
        if kinds == "class":
            if self.tokens[0] != -1:
                raise StoreError(f"{self.folder}: the model has no [CLS] token")
            return slice(0, 1)
        return slice(n_prefix, None) if kinds == "patches" else slice(None)

    def n_tokens(self, kinds: Kinds) -> int:
        """Tokens of that kind in a picture."""
        return len(self.tokens[self.token_slice(kinds)])

    def groups(self, images: range) -> list[tuple[int, int, range]]:
        """Row groups that hold the pictures, as (shard, group, ids of the wanted pictures in it)."""
        found = []
        for number, shard in enumerate(self.shards):
            stop = shard.first_image + shard.n_images
            for group, first in enumerate(range(shard.first_image, stop, self.images_per_group)):
                last = min(first + self.images_per_group, stop)
                wanted = range(max(first, images.start), min(last, images.stop))
                if wanted:
                    found.append((number, group, wanted))
        return found

    def read_group(self, shard: int, group: int, wanted: range, kinds: Kinds) -> np.ndarray:
        """Stored values (n_images, n_tokens, d_model) of the wanted pictures of one row group.

        Raises
        ------
        StoreError
            If the shard cannot be read.
        """
        record = self.shards[shard]
        try:
            column = self._file(shard).read_row_group(group, columns=["activation"], use_threads=False).column(0)
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise StoreError(f"{self.folder / record.file}: row group {group} cannot be read: {error}") from error
        rows = as_array(column.chunk(0), self.d_model, self.dtype)
        pictures = rows.reshape(-1, len(self.tokens), self.d_model)
        start = wanted.start - record.first_image - group * self.images_per_group
        return pictures[start : start + len(wanted), self.token_slice(kinds)]

    def read(self, images: range, kinds: Kinds = "patches") -> torch.Tensor:
        """Activations of consecutive pictures, float32 (n_images, n_tokens, d_model)."""
        if not 0 <= images.start <= images.stop <= self.n_images:
            raise StoreError(f"{self.folder}: pictures {images.start} to {images.stop} of {self.n_images}")
        out = torch.empty(len(images), self.n_tokens(kinds), self.d_model)
        for shard, group, wanted in self.groups(images):
            values = torch.from_numpy(self.read_group(shard, group, wanted, kinds).copy())
            out[wanted.start - images.start : wanted.stop - images.start] = values
        return out

    def iterate(
        self, split: str, batch_images: int = 64, kinds: Kinds = "patches"
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Walk a split in order: ids (b,) and float32 activations (b, n_tokens, d_model)."""
        images = self.image_ids(split)
        for start in range(images.start, images.stop, batch_images):
            batch = range(start, min(start + batch_images, images.stop))
            yield np.arange(batch.start, batch.stop), self.read(batch, kinds)

    def _file(self, shard: int) -> pq.ParquetFile:
        """One open file a thread and shard: pyarrow's readers are not for sharing."""
        if not hasattr(self._open, "files"):
            self._open.files = {}
        if shard not in self._open.files:
            self._open.files[shard] = pq.ParquetFile(self.folder / self.shards[shard].file, memory_map=True)
        return self._open.files[shard]


def write_manifest(
    folder: Path, header: ShardHeader, records: list[ShardRecord], splits: dict[str, tuple[int, int]], **more: Any
) -> Path:
    """Publish shards as a store: the manifest is what later stages depend on.

    Parameters
    ----------
    folder
        Where the shards lie.
    header
        Header of any of them; what is particular to a shard is not used.
    records
        All of them, in the order of their pictures.
    splits
        Split name to (first, stop) picture id.
    more
        Further entries (dataset, model, provenance).
    """
    n_images = sum(record.n_images for record in records)
    expected = 0
    for record in records:
        if record.first_image != expected:
            raise StoreError(f"{folder}: pictures {expected} to {record.first_image} are in no shard")
        expected += record.n_images
    path = folder / "manifest.json"
    manifest = {
        "format": FORMAT,
        "layer": header.layer,
        "d_model": header.d_model,
        "dtype": header.dtype,
        "tokens": list(header.tokens),
        "grid": list(header.grid),
        "n_images": n_images,
        "rows": sum(record.rows for record in records),
        "images_per_group": header.images_per_group,
        "splits": {name: list(bounds) for name, bounds in splits.items()},
        "shards": [asdict(record) for record in records],
        **more,
    }
    write_json(path, manifest)
    return path


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
    n_patches = sum(token >= 0 for token in tokens)
    records = []
    for shard, first, stop in image_ranges(n_images, shards):
        shape = grid or (1, n_patches)
        header = ShardHeader(fingerprint, layer, d_model, dtype, tuple(tokens), shape, first, stop - first)
        path = folder / shard_name(shard)
        with ShardWriter(path, header) as writer:
            for start in range(first, stop, 256):
                writer.add(activations[start : min(start + 256, stop)])
        record = ShardRecord.read_whole(path, fingerprint)
        assert record is not None
        records.append(record)
    bounds, start = {}, 0
    for name, count in splits.items():
        bounds[name] = (start, start + count)
        start += count
    return write_manifest(folder, header, records, bounds)


def image_ranges(n_images: int, shards: int) -> list[tuple[int, int, int]]:
    """Cut pictures into shards of equal size: (shard, first, stop); shards that would be empty are left out."""
    edges = [n_images * shard // shards for shard in range(shards + 1)]
    return [(shard, first, stop) for shard, (first, stop) in enumerate(pairwise(edges)) if stop > first]


def scan(manifest_path: str | Path) -> pl.LazyFrame:
    """Lazily read a store with polars: image_id, token, and activation as an array column."""
    store = ActivationStore.open(manifest_path)
    frame = pl.scan_parquet([store.folder / shard.file for shard in store.shards])
    kind = pl.Array(pl.Float16 if store.dtype == "float16" else pl.Float32, store.d_model)
    return frame.with_columns(pl.col("activation").bin.reinterpret(dtype=kind, endianness="little"))
