"""The activation store's format: one Parquet row a token, activations as fixed-size binary."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from visae.errors import StoreError
from visae.files import read_json

FORMAT = "visae activations 1"
METADATA_KEY = b"visae"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# Row groups of about this many rows read as fast as raw files and still shuffle well (bench/store).
ROWS_PER_GROUP = 8192


@dataclass(frozen=True)
class TokenChoice:
    """Which tokens of each picture are stored.

    Attributes
    ----------
    tokens
        Token ids of a whole picture, in the model's order: -1 for [CLS], -2, ... for registers, patches from 0.
    patches
        Patches kept of each picture, drawn without replacement by seed and picture; None for all.
    seed
        Decides which.
    """

    tokens: tuple[int, ...]
    patches: int | None = None
    seed: int = 0

    @cached_property
    def n_prefix(self) -> int:
        """Tokens before the patches."""
        return sum(token < 0 for token in self.tokens)

    @cached_property
    def is_whole(self) -> bool:
        """Whether every patch is kept."""
        return self.patches is None or self.patches >= len(self.tokens) - self.n_prefix

    @property
    def n_rows(self) -> int:
        """Rows of a picture."""
        return len(self.tokens) if self.is_whole else self.n_prefix + (self.patches or 0)

    def positions(self, images: range) -> np.ndarray:
        """Positions in `tokens` of the stored rows, int64 (n_images, n_rows), ascending; a picture's own each."""
        if self.is_whole:
            return np.broadcast_to(np.arange(len(self.tokens)), (len(images), len(self.tokens)))
        prefix = np.arange(self.n_prefix)
        n_patches = len(self.tokens) - self.n_prefix
        rows = np.empty((len(images), self.n_rows), dtype=np.int64)
        rows[:, : self.n_prefix] = prefix
        for row, image_id in zip(rows, images, strict=True):
            drawn = np.random.default_rng([self.seed, image_id]).permutation(n_patches)[: self.patches]
            row[self.n_prefix :] = np.sort(drawn) + self.n_prefix
        return rows

    def ids(self, images: range) -> np.ndarray:
        """Token ids of the stored rows, int16 (n_images, n_rows)."""
        return np.array(self.tokens, dtype=np.int16)[self.positions(images)]


@dataclass(frozen=True)
class ShardHeader:
    """What a shard's own metadata says: enough to refuse a foreign file.

    Attributes
    ----------
    fingerprint
        Hash of all that decides the values: pictures, weights, preprocessing, layer, tokens, dtype, code.
    layer, hook
        Where in the model; see `visae.vision.hook_points`.
    choice
        Which tokens of each picture.
    grid
        Patches down and across.
    first_image, n_images
        Pictures in this shard: consecutive ids.
    """

    fingerprint: str
    layer: int
    hook: str
    d_model: int
    dtype: str
    choice: TokenChoice
    grid: tuple[int, int]
    first_image: int
    n_images: int

    @property
    def images_per_group(self) -> int:
        """Pictures in a row group: groups hold whole pictures."""
        return max(1, ROWS_PER_GROUP // self.choice.n_rows)

    @property
    def n_bytes(self) -> int:
        """Bytes of the shard's rows: activation, image_id, and token, which takes 32 bits in Parquet too."""
        return self.n_images * self.choice.n_rows * (self.d_model * DTYPES[self.dtype].itemsize + 4 + 4)

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema, this header in its metadata."""
        width = self.d_model * DTYPES[self.dtype].itemsize
        columns = [("image_id", pa.int32()), ("token", pa.int16()), ("activation", pa.binary(width))]
        metadata = {METADATA_KEY: json.dumps({"format": FORMAT, **asdict(self)}).encode()}
        return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns], metadata=metadata)

    @classmethod
    def read(cls, path: str | Path) -> ShardHeader:
        """Read a shard's header.

        Raises
        ------
        StoreError
            If the file is truncated, damaged, or no shard of visae.
        """
        try:
            metadata = pq.read_schema(path).metadata or {}
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise StoreError(f"{path}: not a whole Parquet file ({error}); delete it and make it again") from error
        try:
            entries = json.loads(metadata[METADATA_KEY])
            if entries.pop("format") != FORMAT or set(entries) != {spec.name for spec in fields(cls)}:
                raise ValueError("another format")
            choice = TokenChoice(**{**entries["choice"], "tokens": tuple(entries["choice"]["tokens"])})
            return cls(**{**entries, "choice": choice, "grid": tuple(entries["grid"])})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: not a shard of an activation store ({FORMAT})") from error


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest says of one shard; kept in shard-XXXXX.json beside it while a dump is under way."""

    file: str
    fingerprint: str
    first_image: int
    n_images: int
    rows: int
    bytes: int
    sha256: str
    footer_sha256: str
    minimum: float
    maximum: float
    nan_count: int

    @classmethod
    def read_whole(cls, shard: Path, fingerprint: str) -> ShardRecord | None:
        """Record of a shard that is whole and was made from the same things; None where there is none."""
        side = shard.with_suffix(".json")
        if not (shard.is_file() and side.is_file()):
            return None
        try:
            record = cls(**read_json(side))
        except (TypeError, ValueError):  # damaged, or of a version that noted other things
            return None
        return record if record.fingerprint == fingerprint and record.bytes == shard.stat().st_size else None


def footer_sha256(path: Path) -> str:
    """Hex sha256 of a Parquet file's footer, which says where its pages lie; "" of a file that has none.

    Pages have checksums of their own. The two together find any altered bit without reading what is not wanted.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little") + 8
        if file.read(4) != b"PAR1" or length > size:
            return ""
        file.seek(size - length)
        return hashlib.sha256(file.read()).hexdigest()


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.parquet"


def as_tensor(column: pa.Array, d_model: int, dtype: str) -> torch.Tensor:
    """View a fixed-size binary column as a tensor (rows, d_model), without a copy.

    The memory is Arrow's: do not write to it. NumPy users call `.numpy()` (but not of bfloat16, which NumPy lacks).
    """
    row_bytes = d_model * DTYPES[dtype].itemsize
    buffer = column.buffers()[1].slice(column.offset * row_bytes, len(column) * row_bytes)
    raw = pa.Array.from_buffers(pa.uint8(), len(column) * row_bytes, [None, buffer])
    return torch.from_dlpack(raw).view(DTYPES[dtype]).view(len(column), d_model)
