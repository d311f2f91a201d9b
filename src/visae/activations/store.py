"""Opening an activation store: pictures in order, whole or by kind of token."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from visae.activations.manifest import read_manifest
from visae.activations.schema import DTYPES, ShardRecord, TokenChoice, as_tensor, footer_sha256
from visae.config.kinds import TokenKinds, token_slice
from visae.errors import StoreError

Kinds = TokenKinds

# Pictures that are read at once where single ones are wanted.
_TOGETHER = 64


class ActivationStore:
    """The activations of one data set at one hook point of one model.

    Every picture has the same number of rows, and pictures lie in the order of their ids, so any picture is found
    by arithmetic.

    Attributes
    ----------
    d_model
        Dimension of an activation.
    choice
        Which tokens of each picture are stored.
    n_images
        Pictures in the store, ids 0 to n_images - 1.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.d_model: int = manifest["d_model"]
        self.dtype: str = manifest["dtype"]
        self.choice = TokenChoice(**{**manifest["choice"], "tokens": tuple(manifest["choice"]["tokens"])})
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
        manifest = read_manifest(manifest_path)
        try:
            store = cls(manifest_path.parent, manifest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"{manifest_path}: damaged; make it again with: snakemake --force {manifest_path}"
            ) from error
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

    def row_slice(self, kinds: Kinds) -> slice:
        """Positions of a kind of token within a picture's rows."""
        if kinds == "class" and self.choice.tokens[0] != -1:
            raise StoreError(f"{self.folder}: no [CLS] token: the model has none; choose tokens: patches")
        return token_slice(kinds, self.choice.n_prefix)

    def n_tokens(self, kinds: Kinds) -> int:
        """Stored tokens of that kind in a picture."""
        return len(range(*self.row_slice(kinds).indices(self.choice.n_rows)))

    def token_ids(self, images: range, kinds: Kinds = "patches") -> np.ndarray:
        """Ids of the stored tokens, int16 (n_images, n_tokens)."""
        return self.choice.ids(images)[:, self.row_slice(kinds)]

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

    def read_group(self, shard: int, group: int, wanted: range, kinds: Kinds) -> torch.Tensor:
        """Stored values (n_images, n_tokens, d_model) of the wanted pictures of one row group; a view, not a copy.

        Raises
        ------
        StoreError
            If the shard cannot be read, or is not the one that the manifest describes.
        """
        record = self.shards[shard]
        start = wanted.start - record.first_image - group * self.images_per_group
        try:
            column = self._file(shard).read_row_group(group, columns=["activation"], use_threads=False).column(0)
            rows = as_tensor(column.chunk(0), self.d_model, self.dtype)
            pictures = rows.view(-1, self.choice.n_rows, self.d_model)[start : start + len(wanted)]
            if column.num_chunks != 1 or len(pictures) != len(wanted):
                raise ValueError(f"it has {len(column)} rows")
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise StoreError(
                f"{self.folder / record.file}: row group {group} cannot be read ({error}); find out more with: "
                f"visae activations check {self.folder}"
            ) from error
        return pictures[:, self.row_slice(kinds)]

    def read(self, images: range, kinds: Kinds = "patches") -> torch.Tensor:
        """Activations of consecutive pictures, float32 (n_images, n_tokens, d_model)."""
        if not 0 <= images.start <= images.stop <= self.n_images:
            raise StoreError(f"{self.folder}: pictures {images.start} to {images.stop} of {self.n_images}")
        out = torch.empty(len(images), self.n_tokens(kinds), self.d_model)
        for shard, group, wanted in self.groups(images):
            out[wanted.start - images.start : wanted.stop - images.start] = self.read_group(shard, group, wanted, kinds)
        return out

    def each(self, image_ids: Sequence[int] | np.ndarray, kinds: Kinds = "patches") -> Iterator[torch.Tensor]:
        """Activations (n_tokens, d_model) of each of some pictures, ascending; neighbours are read together."""
        ids = np.asarray(image_ids, dtype=np.int64)
        for run in np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1) if len(ids) else ():
            for first in range(0, len(run), _TOGETHER):
                part = run[first : first + _TOGETHER]
                yield from self.read(range(int(part[0]), int(part[-1]) + 1), kinds)

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
            path = self.folder / self.shards[shard].file
            if footer_sha256(path) != self.shards[shard].footer_sha256:
                raise ValueError("its footer was altered")
            # Arrow checks each page it reads against its checksum, so that a flipped bit is never read as a value.
            self._open.files[shard] = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        return self._open.files[shard]


def scan(manifest_path: str | Path) -> pl.LazyFrame:
    """Lazily read a store with polars: image_id, token, and activation as an array column (bfloat16 as float32)."""
    store = ActivationStore.open(manifest_path)
    frame = pl.scan_parquet([store.folder / shard.file for shard in store.shards])
    raw = {"float16": pl.Float16, "bfloat16": pl.UInt16, "float32": pl.Float32}[store.dtype]
    column = pl.col("activation").bin.reinterpret(dtype=pl.Array(raw, store.d_model), endianness="little")
    if store.dtype == "bfloat16":
        wide = pl.Array(pl.Float32, store.d_model)
        column = column.map_batches(lambda bits: _widened(bits, wide), return_dtype=wide, is_elementwise=True)
    return frame.with_columns(column)


def _widened(bits: pl.Series, kind: pl.Array) -> pl.Series:
    """Values of bfloat16 bits: the upper half of a float32's."""
    values = torch.tensor(bits.to_numpy().view(np.int16)).view(DTYPES["bfloat16"]).float()
    return pl.Series(bits.name, values.numpy(), dtype=kind)
