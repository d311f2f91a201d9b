"""Which latents are alike: in what they write, and in where they are active."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from visae.features.codes import read_codes_manifest, scan_codes
from visae.sae.autoencoder import SparseAutoencoder

NEAREST = 5
"""Neighbours kept of each latent."""

PAIRS = 50_000_000
"""Pairs of latents active on one patch that co-activation is counted from, about."""

# Latents whose similarity to all others exists at once.
_BLOCK = 512


def bias_alignment(sae: SparseAutoencoder) -> NDArray[np.float32]:
    """Cosine of each decoder row with what the SAE gives without any latent, in raw units, (width,).

    Under `per_token`, where that is each token's own, it is the cosine with the decoder's bias, in its units.
    """
    bias = sae.decoder_bias.detach()
    if not sae.needs_like:
        bias = sae.output_mean_of(None) + bias * sae.output_scale_of(None)
    return cosine_similarity(sae.raw_rows(), bias.unsqueeze(0), dim=1).detach().cpu().numpy()


def nearest_by_decoder(decoder: Tensor, n_nearest: int = NEAREST) -> pl.DataFrame:
    """Latents whose decoder rows (width, d) have the largest cosine with each one's, itself left out.

    Returns
    -------
    DataFrame
        latent, nearest_by_decoder, decoder_cosines: lists, the nearest first.
    """
    rows = normalize(decoder.detach().float())
    found = _nearest((part @ rows.T for part in rows.split(_BLOCK)), n_nearest)
    return _as_table(found, "nearest_by_decoder", "decoder_cosines", least=-2)


def nearest_by_coactivation(codes_manifest: Path, n_nearest: int = NEAREST, pairs: int = PAIRS) -> pl.DataFrame:
    """Latents that are most often active on the same patches as each one.

    The measure is the cosine of who is active where: patches that both are active on, over the geometric mean of
    those of the one and of the other. Where all patches would give many more than `pairs` pairs, those of pictures
    evenly spaced over the data set are counted.

    Returns
    -------
    DataFrame
        latent, nearest_by_coactivation, coactivations: lists, the nearest first; latents without a common patch are
        left out.
    """
    from scipy import sparse

    manifest = read_codes_manifest(codes_manifest)
    width, n_images = manifest["width"], manifest["n_images"]
    codes = scan_codes(codes_manifest)
    per_image = manifest["rows"] ** 2 / max(1, manifest["n_tokens"] * n_images)
    wanted = max(1, int(pairs / max(1.0, per_image)))
    if wanted < n_images:
        chosen = np.linspace(0, n_images - 1, wanted).round().astype(np.int32)
        codes = codes.filter(pl.col("image_id").is_in(chosen.tolist()))
    patch = pl.col("image_id").cast(pl.Int64) * (1 << 16) + pl.col("token")
    found = codes.select(patch.rank("dense").cast(pl.Int32) - 1, pl.col("latent")).collect()
    patches, latents = (column.to_numpy() for column in found)
    shape = (1 + int(patches.max(initial=-1)), width)
    active = sparse.csr_array((np.ones(len(patches), np.float32), (patches, latents)), shape=shape)
    counts = np.bincount(latents, minlength=width).astype(np.float32)
    scale = torch.from_numpy(1 / np.sqrt(np.maximum(counts, 1)))
    by_latent = active.T.tocsr()

    def similarities() -> Iterator[Tensor]:
        for first in range(0, width, _BLOCK):
            common = (by_latent[first : first + _BLOCK] @ active).toarray()
            yield torch.from_numpy(common).mul_(scale).mul_(scale[first : first + _BLOCK].unsqueeze(1))

    return _as_table(_nearest(similarities(), n_nearest), "nearest_by_coactivation", "coactivations", least=0)


def _nearest(blocks: Iterator[Tensor], n_nearest: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Largest similarities of each row and whose they are, both (width, n), from blocks (m, width) of consecutive rows.

    A latent's similarity to itself does not count.
    """
    columns, values, first = [], [], 0
    for block in blocks:
        own = torch.arange(len(block))
        block[own, first + own] = -torch.inf
        largest = block.topk(min(n_nearest, block.shape[1] - 1), dim=1)
        columns.append(largest.indices.to(torch.int32))
        values.append(largest.values)
        first += len(block)
    return torch.cat(columns).numpy(), torch.cat(values).numpy()


def _as_table(
    found: tuple[NDArray[np.int32], NDArray[np.float32]], latents: str, similarities: str, least: float
) -> pl.DataFrame:
    """Lists of those with a similarity above `least`."""
    kept = [values > least for values in found[1]]
    lists = [[row[mask].tolist() for row, mask in zip(part, kept, strict=True)] for part in found]
    return pl.DataFrame(
        {"latent": range(len(kept)), latents: lists[0], similarities: lists[1]},
        schema={"latent": pl.Int32, latents: pl.List(pl.Int32), similarities: pl.List(pl.Float32)},
    )
