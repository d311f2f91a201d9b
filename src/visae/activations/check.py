"""Finding what is wrong with a store on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from visae.activations.manifest import read_manifest
from visae.activations.schema import ShardHeader, ShardRecord
from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.files import file_sha256
from visae.progress import progress_bar


def check_store(folder: str | Path) -> list[str]:
    """Read every byte of a store and say what is wrong with it, a line a problem; an empty list if nothing is.

    Parameters
    ----------
    folder
        Folder of manifest.json and shards, or one above several stores, which are all checked.

    Raises
    ------
    StoreError
        If there is no store.
    """
    manifests = sorted(Path(folder).rglob("manifest.json"))
    if not manifests:
        raise StoreError(f"{folder}: no manifest.json here or below; a dump that was not finished has none yet")
    return [problem for manifest in manifests for problem in _problems(manifest)]


def _problems(path: Path) -> Iterator[str]:
    try:
        manifest = read_manifest(path)
        store = ActivationStore(path.parent, manifest)
    except (StoreError, KeyError, TypeError, ValueError) as error:
        yield f"{path}: damaged manifest: {error}"
        return
    known = {shard.file for shard in store.shards}
    for stray in sorted(path.parent.glob("shard-*.parquet")):
        if stray.name not in known:
            yield f"{stray}: foreign: the manifest does not name it"
    n_images = sum(shard.n_images for shard in store.shards)
    if n_images != store.n_images:
        yield f"{path}: the shards hold {n_images} pictures, the manifest says {store.n_images}"
    with progress_bar(sum(shard.bytes for shard in store.shards), f"checking {path.parent.name}", "B") as bar:
        for shard in store.shards:
            problem = _problem(store, shard)
            if problem:
                yield f"{path.parent / shard.file}: {problem}"
            bar.update(shard.bytes)


def _problem(store: ActivationStore, shard: ShardRecord) -> str:
    """What is wrong with one shard, or nothing."""
    path = store.folder / shard.file
    if not path.is_file():
        return "missing"
    if file_sha256(path) == shard.sha256:
        return ""
    try:
        header = ShardHeader.read(path)
        rows = pq.read_metadata(path).num_rows
    except Exception:  # whatever Arrow says of it, the bytes are not those that were written
        size = path.stat().st_size
        if size < shard.bytes:
            return f"truncated: {size} bytes of {shard.bytes}"
        return "altered: its bytes are not those that were written, and it is no readable shard"
    if header.fingerprint != shard.fingerprint or rows != shard.rows or header.first_image != shard.first_image:
        return "foreign: a shard of other pictures, weights, tokens or settings"
    return "altered: its bytes are not those that were written"
