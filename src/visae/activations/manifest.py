"""manifest.json: what a store consists of, and what later stages depend on."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from visae.activations.schema import FORMAT, ShardHeader, ShardRecord
from visae.activations.severity import outlier_severity
from visae.errors import StoreError
from visae.files import read_json, write_json


def image_ranges(n_images: int, shards: int) -> list[tuple[int, int, int]]:
    """Cut pictures into shards of equal size: (shard, first, stop); shards that would be empty are left out."""
    edges = [n_images * shard // shards for shard in range(shards + 1)]
    return [(shard, first, stop) for shard, (first, stop) in enumerate(pairwise(edges)) if stop > first]


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read manifest.json.

    Raises
    ------
    StoreError
        If there is none, or it is another file's.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such manifest; make it with: snakemake {path}")
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise StoreError(f"{path}: damaged ({error}); make it again with: snakemake --force {path}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{path}: not the manifest of an activation store ({FORMAT})")
    return manifest


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
        "hook": header.hook,
        "d_model": header.d_model,
        "dtype": header.dtype,
        "choice": asdict(header.choice),
        "grid": list(header.grid),
        "n_images": n_images,
        "rows": sum(record.rows for record in records),
        "images_per_group": header.images_per_group,
        "splits": {name: list(bounds) for name, bounds in splits.items()},
        "outlier_severity": outlier_severity(folder, header, records),
        "shards": [asdict(record) for record in records],
        **more,
    }
    write_json(path, manifest)
    return path
