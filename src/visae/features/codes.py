"""Sparse codes on disk: one Parquet file a shard of the store, only what is not zero.

Who reads codes asks for latents: the statistics of a range of them, the pictures of one. So a shard is a sequence of
runs, each sorted by latent and then by picture and token, and row groups are small: a reader of few latents skips
all but one or two row groups of a run by the smallest and largest latent that the file's footer has for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from visae.config.kinds import TokenKinds
from visae.errors import StoreError
from visae.files import atomic_path, read_json

FORMAT = "visae codes 2"
_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int32(), nullable=False),
        pa.field("token", pa.int16(), nullable=False),
        pa.field("latent", pa.int32(), nullable=False),
        pa.field("value", pa.float32(), nullable=False),
    ]
)
# Codes that are sorted at once, some 400 MB with the copies, and that a row group has.
RUN_ROWS = 1 << 23
_GROUP_ROWS = 1 << 17
_DICTIONARIES = ["image_id", "token", "latent"]
# In a shard's footer: a hash of all that decides what the shard holds.
_MADE_FROM = b"made_from"


def scan_codes(manifest_path: str | Path, kinds: TokenKinds | None = None) -> pl.LazyFrame:
    """Lazily read codes: image_id int32, token int16, latent int32, value float32, in no order to rely on.

    Parameters
    ----------
    manifest_path
        manifest.json of the codes.
    kinds
        Codes of `patches` (tokens from 0), of `class` tokens (-1), or of `all` tokens with registers (-2 and below);
        left out, of the tokens that the SAE was trained on.

    Raises
    ------
    StoreError
        If it is no manifest of codes, a shard is missing or of another size, or patches are wanted of an SAE of class
        tokens.
    """
    manifest_path = Path(manifest_path)
    record = read_codes_manifest(manifest_path)
    kinds = kinds or tokens_of(record)
    if kinds == "patches" and tokens_of(record) == "class":
        raise StoreError(
            f"{manifest_path}: codes of class tokens, which say nothing of patches; for what is asked of patches, "
            "take an SAE with tokens: patches or tokens: all (a study whose section says tokens: class does not ask)"
        )
    for shard in record["shards"]:
        path = manifest_path.with_name(shard["file"])
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            raise StoreError(f"{path} is missing or not whole; make it again with: snakemake --force {manifest_path}")
    codes = pl.scan_parquet([manifest_path.with_name(shard["file"]) for shard in record["shards"]])
    token = pl.col("token")
    return codes if kinds == "all" else codes.filter(token >= 0 if kinds == "patches" else token == -1)


def tokens_of(record: dict[str, Any]) -> TokenKinds:
    """Tokens that the SAE of a manifest of codes was trained on; manifests of before say nothing, and mean patches."""
    kinds: TokenKinds = record.get("tokens", "patches")
    return kinds


def read_codes_manifest(manifest_path: str | Path) -> dict[str, Any]:
    """What the manifest of codes holds: n_images, n_tokens, width, tokens, splits ({name: [first, stop]}), shards.

    `n_tokens` counts those that the SAE was trained on: `tokens` says of which kind.

    Raises
    ------
    StoreError
        If it is no manifest of codes.
    """
    manifest_path = Path(manifest_path)
    if not manifest_path.is_file():
        raise StoreError(f"{manifest_path}: no such manifest; make it with: snakemake {manifest_path}")
    record = read_json(manifest_path)
    if record.get("format") != FORMAT:
        raise StoreError(f"{manifest_path}: not the manifest of codes ({FORMAT})")
    return record


def with_kind(table: pl.DataFrame, kinds: TokenKinds) -> pl.DataFrame:
    """Note the kind of tokens that a table is of in a column `tokens`, where these are not patches."""
    return table if kinds == "patches" else table.with_columns(tokens=pl.lit(kinds))


def write_codes_shard(path: Path, batches: Iterator[dict[str, NDArray[Any]]], made_from: str) -> None:
    """Write codes as one Parquet file, sorted by latent in runs of about eight million rows.

    Parameters
    ----------
    path
        File to write.
    batches
        Columns image_id, token, latent and value, by image and token.
    made_from
        Hash of all that decides the codes, kept in the file's footer.
    """
    waiting: list[dict[str, NDArray[Any]]] = []
    schema = _SCHEMA.with_metadata({_MADE_FROM: made_from})
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=_DICTIONARIES) as file,
    ):
        for batch in batches:
            waiting.append(batch)
            if sum(len(part["latent"]) for part in waiting) >= RUN_ROWS:
                file.write_table(_by_latent(waiting, schema), row_group_size=_GROUP_ROWS)
                waiting = []
        if waiting:
            file.write_table(_by_latent(waiting, schema), row_group_size=_GROUP_ROWS)


def what_shard_is_made_from(path: Path) -> str | None:
    """What a shard of codes was made from; None where there is none, or none that can be read."""
    try:
        return (pq.read_metadata(path).metadata or {}).get(_MADE_FROM, b"").decode()
    except (OSError, pa.ArrowInvalid):
        return None


def _by_latent(parts: list[dict[str, NDArray[Any]]], schema: pa.Schema) -> pa.Table:
    """Codes that come by image and token, by latent, image and token."""
    latents = np.concatenate([part["latent"] for part in parts])
    # NumPy's stable sort of 16-bit keys is a radix sort, many times faster than that of wider ones.
    narrow = latents.astype(np.uint16) if len(latents) and latents.max() < 1 << 16 else latents
    order = np.argsort(narrow, kind="stable")
    columns = {name: np.concatenate([part[name] for part in parts])[order] for name in schema.names}
    return pa.table(columns, schema=schema)
