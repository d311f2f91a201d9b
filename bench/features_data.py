"""Codes as an SAE would give, without one: each token has a latent of every stratum, some a hundred times as often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.data.index import SCHEMA
from visae.features.codes import FORMAT, write_codes_shard
from visae.files import write_json
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.topk import TopK

PATCHES, WIDTH, ACTIVE, D_MODEL = 256, 6144, 32, 384
CLASSES = 100
_BATCH_IMAGES = 64


def write_features(folder: Path, n_entries: int) -> Path:
    """Write codes with about that many entries, and an index and an SAE that go with them; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    n_images = round(n_entries / ACTIVE / PATCHES)
    shard = folder / "shard-00000.parquet"
    write_codes_shard(shard, _drawn(n_images), made_from="drawn")
    label = np.arange(n_images) % CLASSES
    known = {"image_id": range(n_images), "label": label, "label_name": [f"class {number}" for number in label]}
    unknown = {name: [None] * n_images for name in SCHEMA if name not in known}
    pl.DataFrame(known | unknown, schema=SCHEMA).write_parquet(folder / "index.parquet")
    sae = SparseAutoencoder(D_MODEL, WIDTH, TopK(ACTIVE))
    torch.nn.init.normal_(sae.decoder_weight, generator=torch.Generator().manual_seed(0))
    save_sae(sae, folder)
    rows = n_images * PATCHES * ACTIVE
    record = {
        "format": FORMAT,
        "n_images": n_images,
        "n_tokens": n_images * PATCHES,
        "width": WIDTH,
        "rows": rows,
        "splits": {"train": [0, n_images]},
        "shards": [{"file": shard.name, "rows": rows, "bytes": shard.stat().st_size}],
    }
    write_json(folder / "manifest.json", record)
    return folder / "manifest.json"


def _drawn(n_images: int) -> Iterator[dict[str, NDArray]]:
    """Codes of some pictures at a time, by picture, token and latent."""
    random = np.random.default_rng(20_260)
    stratum = WIDTH // ACTIVE
    for first in range(0, n_images, _BATCH_IMAGES):
        images = np.arange(first, min(first + _BATCH_IMAGES, n_images), dtype=np.int32)
        shape = (len(images), PATCHES, ACTIVE)
        # The cube of a uniform number: the first latents of a stratum come up a hundred times as often as the last.
        within = (stratum * random.random(shape, dtype=np.float32) ** 3).astype(np.int32)
        latents = within.clip(max=stratum - 1) + stratum * np.arange(ACTIVE, dtype=np.int32)
        yield {
            "image_id": np.broadcast_to(images[:, None, None], shape).reshape(-1),
            "token": np.broadcast_to(np.arange(PATCHES, dtype=np.int16)[:, None], shape).reshape(-1),
            "latent": latents.reshape(-1),
            "value": random.standard_exponential(shape, dtype=np.float32).reshape(-1),
        }
