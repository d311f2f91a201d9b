"""Codes of a dictionary whose meanings are planted, with the files that an audit reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from visae.audit.audit import AuditFiles, run_audit
from visae.config.audit import AuditSettings
from visae.data.index import SCHEMA as INDEX_SCHEMA
from visae.features.codes import FORMAT
from visae.files import write_json

N_FIT, N_MEASURE, N_PATCHES = 60, 80, 12
N_IMAGES = N_FIT + N_MEASURE
CLASSES = {1: "sky", 2: "road", 3: "tree", 4: "only in train"}
N_MEANT, WIDTH = 12, 60
"""Latent i below N_MEANT means class 1 + i % 3; the others mean nothing, and the last is never active."""

SETTINGS = AuditSettings(permutations=199, bootstrap=50, untrained=0)


def plant(folder: Path, seed: int = 0, n_meant: int = N_MEANT, labelled: bool = True) -> AuditFiles:
    """Write codes, labels of patches and an index.

    Patches of a picture resemble each other: each picture shows a class of its own on most of them, and each latent
    without a meaning is strong in some pictures and silent in others. Who takes patches for independent is misled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    of_picture = random.integers(1, 4, N_IMAGES)
    labels = np.where(random.random((N_IMAGES, N_PATCHES)) < 0.8, of_picture[:, None], 0)
    labels[:5] = 4
    codes = random.random((N_IMAGES, N_PATCHES, WIDTH)).astype(np.float32)
    codes *= (random.random((N_IMAGES, 1, WIDTH)) < 0.4) & (random.random(codes.shape) < 0.8)
    for latent in range(n_meant):
        fires = (labels == 1 + latent % 3) ^ (random.random(labels.shape) < 0.1)
        codes[..., latent] = np.where(fires, 1 + random.random(labels.shape), 0)
    codes[..., WIDTH - 1] = 0
    write_codes(folder, codes)
    shown = pl.Series("label", np.where(np.arange(N_IMAGES) < 5, 4, of_picture)) if labelled else None
    write_index(folder, shown)
    write_labels(folder, labels)
    return AuditFiles(
        codes=str(folder / "manifest.json"), index=str(folder / "index.parquet"), labels=str(folder / "labels.parquet")
    )


def plant_scenes(folder: Path) -> AuditFiles:
    """Write scenes of one object, on all patches but the first and the last: latent 0 is of disks, latent 1 of sky."""
    random = np.random.default_rng(0)
    shapes, textures = random.choice(["disk", "ring"], N_IMAGES), random.integers(1, 4, N_IMAGES)
    labels = np.tile(textures[:, None], (1, N_PATCHES))
    labels[:, [0, -1]] = 0
    codes = np.zeros((N_IMAGES, N_PATCHES, 2), dtype=np.float32)
    codes[..., 0] = (shapes == "disk")[:, None] * (1 + random.random(labels.shape))
    codes[..., 1] = (labels == 1) * (1 + random.random(labels.shape))
    write_codes(folder, codes)
    write_labels(folder, labels)
    write_index(folder, None)
    index = pl.read_parquet(folder / "index.parquet")
    index.with_columns(pl.lit(64, pl.Int32).alias(side) for side in ("width", "height")).write_parquet(
        folder / "index.parquet"
    )
    (folder / "pictures").mkdir()
    causes = {"image_id": range(N_IMAGES), "texture": [CLASSES[n] for n in textures], "shape": shapes, "tint": "none"}
    centres = {name: random.integers(0, 64, N_IMAGES) for name in ("centre_x", "centre_y")}
    table = pl.DataFrame({**causes, **centres}).cast({"image_id": pl.Int32})
    table.write_parquet(folder / "pictures" / "causes.parquet")
    paths = {"codes": "manifest.json", "index": "index.parquet", "labels": "labels.parquet"}
    return AuditFiles(**{name: str(folder / path) for name, path in paths.items()})


def write_codes(folder: Path, codes: np.ndarray) -> None:
    """Write dense codes (n_images, n_patches, width) as a manifest with one shard."""
    image, token, latent = np.nonzero(codes)
    pl.DataFrame(
        {
            "image_id": image.astype(np.int32),
            "token": token.astype(np.int16),
            "latent": latent.astype(np.int32),
            "value": codes[image, token, latent],
        }
    ).write_parquet(folder / "shard.parquet")
    shard = {"file": "shard.parquet", "rows": len(image), "bytes": (folder / "shard.parquet").stat().st_size}
    manifest = {"format": FORMAT, "n_images": len(codes), "n_tokens": codes[..., 0].size, "width": codes.shape[2]}
    splits = {"train": [0, N_FIT], "val": [N_FIT, len(codes)]}
    write_json(folder / "manifest.json", manifest | {"rows": len(image), "splits": splits, "shards": [shard]})


def write_index(folder: Path, labels: pl.Series | None) -> None:
    """Write an index of pictures with labels of their own, or without any."""
    table = pl.DataFrame({"image_id": range(N_IMAGES)}, schema_overrides={"image_id": pl.Int32})
    table = table.select(
        pl.col(name) if name == "image_id" else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in INDEX_SCHEMA.items()
    )
    if labels is not None:
        table = table.with_columns(labels.cast(INDEX_SCHEMA["label"]))
    table.write_parquet(folder / "index.parquet")
    write_json(folder / "summary.json", {"classes": [{"id": n, "name": name} for n, name in CLASSES.items()]})


def write_labels(folder: Path, labels: np.ndarray) -> None:
    """Write the classes (n_images, n_patches) of patches, all pure."""
    pl.DataFrame(
        {
            "image_id": np.repeat(np.arange(len(labels), dtype=np.int32), labels.shape[1]),
            "token": np.tile(np.arange(labels.shape[1], dtype=np.int16), len(labels)),
            "label": labels.ravel().astype(np.int16),
            "purity": np.ones(labels.size, dtype=np.float32),
        }
    ).write_parquet(folder / "labels.parquet")


def run(files: AuditFiles, output: Path, settings: AuditSettings = SETTINGS, seed: int = 0, **more: Any):
    """Run an audit; `more` are other files. Returns proposals, yields, summary."""
    summary = run_audit(replace(files, **more), settings, output, device="cpu", seed=seed)
    return pl.read_parquet(output / "proposals.parquet"), pl.read_parquet(output / "yields.parquet"), summary
