"""Dictionaries that never learned, encoded on the spot: they propose, and are tested, as the audited one is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visae.activations.store import ActivationStore
from visae.arms.dictionaries import mean_input, untrained_dictionaries
from visae.audit.dictionary import Dictionary
from visae.audit.meanings import Drawn
from visae.features.codes import FORMAT, read_codes_manifest, write_codes_shard
from visae.features.encoding import encoded_kinds
from visae.files import write_json
from visae.progress import progress_bar
from visae.sae import SparseAutoencoder

# Tokens encoded at once, and tokens of the first split of whose mean directions start.
_BATCH_TOKENS = 8192
_MEAN_TOKENS = 50_000


def encoded_untrained(
    sae: SparseAutoencoder, store: ActivationStore, codes: Path, drawn: Drawn, n: int, seed: int
) -> Iterator[Dictionary]:
    """Yield untrained dictionaries by their codes of the drawn pictures, each deleted when the next one is asked for.

    They are as wide as the SAE, with as many codes a token, in its units.

    Parameters
    ----------
    codes
        manifest.json of the SAE's own codes, which says how many there are of a token.
    drawn
        Pictures by split; directions start of the mean token of the first split's.
    """
    record = read_codes_manifest(codes)
    k = max(1, round(record["rows"] / (record["n_images"] * store.n_tokens(encoded_kinds(sae)))))
    middle = mean_input(sae, _sample(store, next(iter(drawn.values())), sae))
    with progress_bar(n, "untrained dictionaries", "dictionaries") as bar:
        for dictionary in untrained_dictionaries(sae, k, n, seed, middle):
            with tempfile.TemporaryDirectory(prefix="visae-audit-") as folder:
                yield Dictionary(_encoded(dictionary, store, drawn, Path(folder)), drawn)
            bar.update()


def _sample(store: ActivationStore, ids: NDArray[np.int64], sae: SparseAutoencoder) -> torch.Tensor:
    """Tokens of the first pictures, (n, d_model)."""
    kinds = sae.place.tokens
    enough = max(1, _MEAN_TOKENS // store.n_tokens(kinds))
    return torch.cat(list(store.each(ids[:enough], kinds)))


def _encoded(dictionary: SparseAutoencoder, store: ActivationStore, drawn: Drawn, folder: Path) -> Path:
    """Write codes of the drawn pictures, and their manifest, as `visae encode` does of all; returns the manifest."""
    shard = folder / "shard-00000.parquet"
    write_codes_shard(shard, _batches(dictionary, store, drawn), made_from="")
    manifest = folder / "manifest.json"
    record: dict[str, Any] = {
        "format": FORMAT,
        "tokens": dictionary.place.tokens,
        "width": dictionary.width,
        "shards": [{"file": shard.name, "bytes": shard.stat().st_size}],
    }
    write_json(manifest, record)
    return manifest


def _batches(dictionary: SparseAutoencoder, store: ActivationStore, drawn: Drawn) -> Iterator[dict[str, NDArray[Any]]]:
    """Codes of the drawn pictures by image, token and latent."""
    kinds, device = dictionary.place.tokens, dictionary.decoder_bias.device
    n_tokens = store.n_tokens(kinds)
    ids = np.unique(np.concatenate(list(drawn.values())))
    pictures, batch = store.each(ids, kinds), max(1, _BATCH_TOKENS // n_tokens)
    for start in range(0, len(ids), batch):
        own = ids[start : start + batch]
        tokens = torch.cat([next(pictures) for _ in own]).to(device, torch.float32)
        codes = dictionary.sparse_codes(tokens)
        picture, place = np.divmod(codes.tokens.cpu().numpy(), n_tokens)
        names = np.concatenate([store.token_ids(range(one, one + 1), kinds) for one in own.tolist()])
        yield {
            "image_id": own[picture].astype(np.int32),
            "token": names[picture, place],
            "latent": codes.latents.cpu().numpy().astype(np.int32),
            "value": codes.values.cpu().numpy(),
        }
