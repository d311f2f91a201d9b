"""Encode a whole store: one streaming pass from activations to sparse codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from visae.activations.schema import ShardRecord
from visae.activations.store import ActivationStore, Kinds
from visae.device import chosen_device, described
from visae.errors import StoreError
from visae.features.codes import FORMAT, what_shard_is_made_from, write_codes_shard
from visae.files import read_json, text_sha256, write_json
from visae.progress import progress_bar
from visae.provenance import Provenance, code_fingerprint
from visae.sae.autoencoder import SparseAutoencoder, load_sae

_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Encoding:
    """What is encoded, for the record."""

    kinds: Kinds = "all"


def encode_store(manifest: Path, sae_config: Path, output: Path, device: str = "auto") -> dict[str, Any]:
    """Write the codes of every token of a store, all splits; with an SAE of class tokens, of class tokens alone.

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
    kinds = encoded_kinds(sae)
    provenance = Provenance(Encoding(kinds), [manifest, sae_config], seed=0, device=described(where))
    shards: list[dict[str, Any]] = []
    with progress_bar(store.n_images, "encoding", "images") as bar:
        for shard in store.shards:
            path, images = Path(output) / shard.file, range(shard.first_image, shard.first_image + shard.n_images)
            identity = _identity(shard, sae_config, where.type, kinds)
            if what_shard_is_made_from(path) == identity:
                bar.update(len(images))
            else:
                write_codes_shard(path, _encoded(store, sae, images, kinds, bar), identity)
            shards.append({"file": shard.file, "rows": pq.read_metadata(path).num_rows, "bytes": path.stat().st_size})
    record = {
        "format": FORMAT,
        "n_images": store.n_images,
        "n_tokens": store.n_images * store.n_tokens(sae.place.tokens),
        "tokens": sae.place.tokens,
        "width": sae.width,
        "rows": sum(shard["rows"] for shard in shards),
        "splits": {name: [ids.start, ids.stop] for name, ids in store.splits.items()},
        "shards": shards,
        "provenance": provenance.record(),
    }
    write_json(Path(output) / "manifest.json", record)
    return record


def encoded_kinds(sae: SparseAutoencoder) -> Kinds:
    """Tokens that are encoded: all, but of an SAE of class tokens, to which patches are foreign."""
    return "class" if sae.place.tokens == "class" else "all"


def _identity(shard: ShardRecord, sae_config: Path, device: str, kinds: Kinds) -> str:
    """Hash of all that decides the codes of a shard."""
    config = read_json(sae_config)
    sae = [kinds, *(config.get(key) for key in ("weights_sha256", "variant", "options", "clamp", "normalization"))]
    code = code_fingerprint("visae.features.encoding")
    return text_sha256(json.dumps([FORMAT, code, device, shard.sha256, shard.first_image, sae], sort_keys=True))


def _encoded(
    store: ActivationStore, sae: SparseAutoencoder, images: range, kinds: Kinds, bar: Any
) -> Iterator[dict[str, NDArray[Any]]]:
    """Codes of consecutive pictures, batch after batch, by image, token and latent."""
    n_tokens = store.n_tokens(kinds)
    batch_images = max(1, _BATCH_TOKENS // n_tokens)
    for first in range(images.start, images.stop, batch_images):
        batch = range(first, min(first + batch_images, images.stop))
        activations = store.read(batch, kinds).flatten(0, 1).to(sae.decoder_bias.device)
        codes = sae.sparse_codes(activations)
        picture, place = np.divmod(codes.tokens.cpu().numpy(), n_tokens)
        yield {
            "image_id": (picture + first).astype(np.int32),
            "token": store.token_ids(batch, kinds)[picture, place],
            "latent": codes.latents.cpu().numpy().astype(np.int32),
            "value": codes.values.cpu().numpy(),
        }
        bar.update(len(batch))
