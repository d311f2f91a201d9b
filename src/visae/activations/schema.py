"""The activation store's format: one Parquet row a token, activations as fixed-size binary."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from visae.errors import StoreError
from visae.files import read_json

FORMAT = "visae activations 1"
METADATA_KEY = b"visae"
DTYPES = {"float16": torch.float16, "float32": torch.float32}
# Row groups of about this many rows read as fast as raw files and still shuffle well (bench/store.py).
ROWS_PER_GROUP = 8192


@dataclass(frozen=True)
class ShardHeader:
    """What a shard's own metadata says: enough to refuse a foreign file.

    Attributes
    ----------
    fingerprint
        Hash of all that decides the values: pictures, weights, preprocessing, layer, tokens, dtype, code.
    tokens
        Token ids of every picture, in row order (-1 for [CLS], -2, ... for registers, patches from 0).
    first_image, n_images
        Pictures in this shard: consecutive ids, each with one row a token.
    """

    fingerprint: str
    layer: int
    d_model: int
    dtype: str
    tokens: tuple[int, ...]
    grid: tuple[int, int]
    first_image: int
    n_images: int

    @property
    def images_per_group(self) -> int:
        """Pictures in a row group: groups hold whole pictures."""
        return max(1, ROWS_PER_GROUP // len(self.tokens))

    def schema(self) -> pa.Schema:
        """Arrow schema, this header in its metadata."""
        width = self.d_model * DTYPES[self.dtype].itemsize
        fields = [("image_id", pa.int32()), ("token", pa.int16()), ("activation", pa.binary(width))]
        metadata = {METADATA_KEY: json.dumps({"format": FORMAT, **asdict(self)}).encode()}
        return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields], metadata=metadata)

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
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: not a whole Parquet file ({error}); delete it and make it again") from error
        fields = json.loads(metadata.get(METADATA_KEY, b"{}"))
        if fields.pop("format", None) != FORMAT:
            raise StoreError(f"{path}: not a shard of an activation store ({FORMAT})")
        return cls(**{**fields, "tokens": tuple(fields["tokens"]), "grid": tuple(fields["grid"])})


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
    minimum: float
    maximum: float
    nan_count: int

    @classmethod
    def read_whole(cls, shard: Path, fingerprint: str) -> ShardRecord | None:
        """Record of a shard that is whole and was made from the same things; None where there is none."""
        side = shard.with_suffix(".json")
        if not (shard.is_file() and side.is_file()):
            return None
        record = cls(**read_json(side))
        return record if record.fingerprint == fingerprint and record.bytes == shard.stat().st_size else None


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.parquet"


def as_array(column: pa.Array, d_model: int, dtype: str) -> np.ndarray:
    """View a fixed-size binary column as an array (rows, d_model) without a copy."""
    start = column.offset * d_model
    flat = np.frombuffer(column.buffers()[1], dtype=dtype)
    return flat[start : start + len(column) * d_model].reshape(len(column), d_model)
