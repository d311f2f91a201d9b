"""Sparse codes of a whole store: one streaming pass, one Parquet file a shard, only what is not zero.

Who reads codes asks for latents: the statistics of a range of them, the pictures of one. So a shard is a sequence of
runs, each sorted by latent and then by picture and token, and row groups are small: a reader of few latents skips
all but one or two row groups of a run by the smallest and largest latent that the file's footer has for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from visae.activations.schema import ShardRecord
from visae.activations.store import ActivationStore
from visae.device import chosen_device, described
from visae.errors import StoreError
from visae.files import atomic_path, read_json, text_sha256, write_json
from visae.progress import progress_bar
from visae.provenance import Provenance, code_fingerprint
from visae.sae.autoencoder import SparseAutoencoder, load_sae

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
_BATCH_TOKENS = 8192
_DICTIONARIES = ["image_id", "token", "latent"]
# In a shard's footer: a hash of all that decides what the shard holds.
_MADE_FROM = b"made_from"


@dataclass(frozen=True)
class Encoding:
    """What is encoded, for the record."""

    kinds: str = "all"


def encode_store(manifest: Path, sae_config: Path, output: Path, device: str = "auto") -> dict[str, Any]:
    """Write the codes of every token of a store, all splits.

    Memory does not grow with the store: pictures are read, encoded and written in batches. Shards that are there
    already, of the same activations and the same SAE, are kept.

    Parameters
    ----------
    manifest
        manifest.json of the activations.
    sae_config
        config.json of the SAE.
    output
        Folder of shard-XXXXX.parquet (one a shard of the store) and manifest.json, which is written last.
    device
        `auto`, `cpu` or `cuda`.

    Returns
    -------
    dict
        What manifest.json holds.
    """
    where = chosen_device(device)
    store, sae = ActivationStore.open(manifest), load_sae(sae_config, where)
    if store.d_model != sae.d_model:
        raise StoreError(f"{manifest} has activations of {store.d_model} dimensions, {sae_config} takes {sae.d_model}")
    provenance = Provenance(Encoding(), [manifest, sae_config], seed=0, device=described(where))
    shards: list[dict[str, Any]] = []
    with progress_bar(store.n_images, "encoding", "images") as bar:
        for shard in store.shards:
            path, images = Path(output) / shard.file, range(shard.first_image, shard.first_image + shard.n_images)
            made_from = _identity(shard, sae_config, where.type)
            if _made_from(path) == made_from:
                bar.update(len(images))
            else:
                write_codes_shard(path, _encoded(store, sae, images, bar), made_from)
            shards.append({"file": shard.file, "rows": pq.read_metadata(path).num_rows, "bytes": path.stat().st_size})
    record = {
        "format": FORMAT,
        "n_images": store.n_images,
        "n_tokens": store.n_images * store.n_tokens("patches"),
        "width": sae.width,
        "rows": sum(shard["rows"] for shard in shards),
        "splits": {name: [ids.start, ids.stop] for name, ids in store.splits.items()},
        "shards": shards,
        "provenance": provenance.record(),
    }
    write_json(Path(output) / "manifest.json", record)
    return record


def scan_codes(manifest_path: str | Path, kinds: Literal["patches", "all"] = "patches") -> pl.LazyFrame:
    """Lazily read codes: image_id int32, token int16, latent int32, value float32, in no order to rely on.

    Parameters
    ----------
    manifest_path
        manifest.json of the codes.
    kinds
        With `all`, codes of the class token (token -1) and of registers (-2 and below) too.

    Raises
    ------
    StoreError
        If it is no manifest of codes, or a shard is missing or of another size.
    """
    manifest_path = Path(manifest_path)
    record = read_codes_manifest(manifest_path)
    for shard in record["shards"]:
        path = manifest_path.with_name(shard["file"])
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            raise StoreError(f"{path} is missing or not whole; make it again with: snakemake --force {manifest_path}")
    codes = pl.scan_parquet([manifest_path.with_name(shard["file"]) for shard in record["shards"]])
    return codes if kinds == "all" else codes.filter(pl.col("token") >= 0)


def read_codes_manifest(manifest_path: str | Path) -> dict[str, Any]:
    """What the manifest of codes holds: n_images, n_tokens, width, splits ({name: [first, stop]}), shards.

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


def _identity(shard: ShardRecord, sae_config: Path, device: str) -> str:
    """Hash of all that decides the codes of a shard."""
    config = read_json(sae_config)
    sae = [config.get(key) for key in ("weights_sha256", "variant", "options", "clamp")]
    code = code_fingerprint("visae.features.codes")
    return text_sha256(json.dumps([FORMAT, code, device, shard.sha256, shard.first_image, sae], sort_keys=True))


def _made_from(path: Path) -> str | None:
    """What a shard of codes was made from; None where there is none, or none that can be read."""
    try:
        return (pq.read_metadata(path).metadata or {}).get(_MADE_FROM, b"").decode()
    except (OSError, pa.ArrowInvalid):
        return None


def _encoded(
    store: ActivationStore, sae: SparseAutoencoder, images: range, bar: Any
) -> Iterator[dict[str, NDArray[Any]]]:
    """Codes of consecutive pictures, batch after batch, by image, token and latent."""
    n_tokens = store.n_tokens("all")
    batch_images = max(1, _BATCH_TOKENS // n_tokens)
    for first in range(images.start, images.stop, batch_images):
        batch = range(first, min(first + batch_images, images.stop))
        activations = store.read(batch, "all").flatten(0, 1).to(sae.decoder_bias.device)
        codes = sae.sparse_codes(activations)
        picture, place = np.divmod(codes.tokens.cpu().numpy(), n_tokens)
        yield {
            "image_id": (picture + first).astype(np.int32),
            "token": store.token_ids(batch, "all")[picture, place],
            "latent": codes.latents.cpu().numpy().astype(np.int32),
            "value": codes.values.cpu().numpy(),
        }
        bar.update(len(batch))


def _by_latent(parts: list[dict[str, NDArray[Any]]], schema: pa.Schema) -> pa.Table:
    """Codes that come by image and token, by latent, image and token."""
    latents = np.concatenate([part["latent"] for part in parts])
    # NumPy's stable sort of 16-bit keys is a radix sort, many times faster than that of wider ones.
    narrow = latents.astype(np.uint16) if len(latents) and latents.max() < 1 << 16 else latents
    order = np.argsort(narrow, kind="stable")
    columns = {name: np.concatenate([part[name] for part in parts])[order] for name in schema.names}
    return pa.table(columns, schema=schema)
