"""What bench/features describes: codes drawn without an SAE, and activations with an SAE that gives as many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from visae.activations.given import write_store
from visae.data.index import SCHEMA
from visae.features.codes import FORMAT, write_codes_shard
from visae.files import write_json
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

PATCHES, WIDTH, ACTIVE, D_MODEL = 256, 6144, 32, 384
CLASSES = 100
# Of a standard normal number, ACTIVE of WIDTH are above.
BIAS = -2.561
_BATCH_IMAGES = 64
_BY_PICTURE_ROWS = 1 << 20


def write_features(folder: Path, n_entries: int, by_latent: bool = True) -> None:
    """Write codes with about that many entries, and an index and an SAE that go with them.

    With `by_latent` they lie as visae writes them, else by picture in row groups of a million.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_images = round(n_entries / ACTIVE / PATCHES)
    shard = folder / "shard-00000.parquet"
    if by_latent:
        write_codes_shard(shard, _drawn(n_images), made_from="drawn")
    else:
        table = pa.concat_tables(pa.table(columns) for columns in _drawn(n_images))
        pq.write_table(table, shard, row_group_size=_BY_PICTURE_ROWS, compression="none", use_dictionary=True)
    _write_index(folder, n_images)
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


def write_activations(folder: Path, n_images: int) -> None:
    """Write the same normal numbers as a store and as saev's raw file, and a ReLU SAE with ACTIVE latents a patch."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(n_images, 1 + PATCHES, D_MODEL, generator=generator).numpy()
    values.tofile(folder / "acts000000.bin")
    write_store(folder / "store", values, [-1, *range(PATCHES)], {"train": n_images}, grid=(16, 16))
    _write_index(folder, n_images)
    sae = SparseAutoencoder(D_MODEL, WIDTH, Relu())
    sae.weights.encoder.copy_(normalize(torch.randn(WIDTH, D_MODEL, generator=generator)))
    sae.weights.decoder.copy_(sae.weights.encoder)
    sae.weights.encoder_bias.fill_(BIAS)
    save_sae(sae, folder)


def _write_index(folder: Path, n_images: int) -> None:
    label = np.arange(n_images) % CLASSES
    known = {"image_id": range(n_images), "label": label, "label_name": [f"class {number}" for number in label]}
    unknown = {name: [None] * n_images for name in SCHEMA if name not in known}
    pl.DataFrame(known | unknown, schema=SCHEMA).write_parquet(folder / "index.parquet")


def _drawn(n_images: int) -> Iterator[dict[str, NDArray]]:
    """Codes of some pictures at a time: each patch has one latent of every stratum, some far more often than others."""
    random = np.random.default_rng(20_260)
    stratum = WIDTH // ACTIVE
    for first in range(0, n_images, _BATCH_IMAGES):
        images = np.arange(first, min(first + _BATCH_IMAGES, n_images), dtype=np.int32)
        shape = (len(images), PATCHES, ACTIVE)
        # The cube of a uniform number: the first latent of a stratum comes up a hundred times as often as the last.
        within = (stratum * random.random(shape, dtype=np.float32) ** 3).astype(np.int32)
        latents = within.clip(max=stratum - 1) + stratum * np.arange(ACTIVE, dtype=np.int32)
        yield {
            "image_id": np.broadcast_to(images[:, None, None], shape).reshape(-1),
            "token": np.broadcast_to(np.arange(PATCHES, dtype=np.int16)[:, None], shape).reshape(-1),
            "latent": latents.reshape(-1),
            "value": random.standard_exponential(shape, dtype=np.float32).reshape(-1),
        }
