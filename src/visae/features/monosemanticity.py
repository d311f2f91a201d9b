"""MonoSemanticity score (Pach et al. 2025): how alike the pictures are that activate a latent, for another eye.

It is the mean cosine similarity of all pairs of different pictures, each pair weighted by the product of the latent's
values in both. A sum over pairs w_i w_j e_i . e_j is |sum w_i e_i|^2 less the terms i = j, so that the exact score
costs one pass over the codes, and pictures are never compared in pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from visae.activations.store import ActivationStore
from visae.config.settings import FeatureSettings
from visae.data.images import pixels
from visae.data.index import read_index
from visae.device import chosen_device
from visae.errors import StoreError
from visae.features.blocks import codes_by_latents, read_matching_manifest
from visae.features.concepts import BLOCK_CODES
from visae.features.image_scores import pooled
from visae.features.resampling import benjamini_hochberg, p_value, permutations
from visae.files import atomic_path, read_json
from visae.progress import progress_bar
from visae.vision.model import VisionModel, load_model

FEWEST = 10
"""Pictures in which a latent must be active: of fewer, the score is that of a handful of pairs, and is left out."""

SCHEMA = {"latent": pl.Int32, "images": pl.Int32} | {
    f"monosemanticity{ending}": pl.Float64 for ending in ("", "_low", "_high", "_null", "_null_95", "_p", "_q")
}

_Z = 1.959963984540054
_BATCH_PICTURES = 64
_CHUNK = 1 << 16


def write_monosemanticity(
    codes_manifest: Path,
    index_path: Path,
    output: Path,
    settings: FeatureSettings,
    judge: Path,
    *,
    split: str = "val",
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Write monosemanticity.parquet: one row a latent, with the score's interval and null.

    Pictures are compared by the embeddings of another model, or by the mean patch activation in the store, which costs
    no forward pass but is the view of the model that is studied; another model is the better judge. A
    latent's value in a picture is its largest patch value.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    index_path
        Index of the data set.
    output
        Parquet file to write: `SCHEMA`, one row a latent; scores are null below `FEWEST` pictures.
    settings
        Section `features`.
    judge
        model.json of any timm model, made by `visae model`, whose pooled features are the embeddings; or
        manifest.json of the activations that the codes were made of.
    split
        Pictures to compare.
    seed
        Seed of the permutations.
    device
        `auto`, `cpu` or `cuda`.

    Raises
    ------
    StoreError
        If the codes have no such split.
    """
    codes_record = read_matching_manifest(codes_manifest, index_path)
    if split not in codes_record["splits"]:
        raise StoreError(f"{codes_manifest} has no split {split}, only {', '.join(codes_record['splits'])}")
    pictures = range(*codes_record["splits"][split])
    is_store = "shards" in read_json(judge)
    embeddings = unit(mean_activations(judge, pictures) if is_store else encoded(index_path, judge, pictures, device))
    orders = permutations(len(pictures), settings.permutations, seed)
    blocks = []
    for latents, codes in codes_by_latents(codes_manifest, BLOCK_CODES):
        found = (
            pooled(codes.filter(pl.col("image_id").is_between(pictures.start, pictures.stop, closed="left")), "max")
            .filter(pl.col("value") > 0)
            .sort("latent", "image_id")
            .collect()
        )
        place = found["latent"].to_numpy() - latents.start, found["image_id"].to_numpy() - pictures.start
        weights = csr_array((found["value"].to_numpy().astype(np.float64), place), (len(latents), len(pictures)))
        blocks.append(score_block(weights, embeddings, orders, latents))
    table = pl.concat(blocks)
    table = table.with_columns(
        pl.Series("monosemanticity_q", benjamini_hochberg(table["monosemanticity_p"].to_numpy()))
    )
    with atomic_path(output) as temporary:
        table.select(
            pl.col(name).cast(dtype).fill_nan(None) if dtype == pl.Float64 else pl.col(name).cast(dtype)
            for name, dtype in SCHEMA.items()
        ).write_parquet(temporary)


def score_block(
    weights: csr_array, embeddings: NDArray[np.floating], orders: NDArray[np.integer], latents: range
) -> pl.DataFrame:
    """Score a range of latents.

    Parameters
    ----------
    weights
        (n_latents, n_pictures) values of the latents.
    embeddings
        (n_pictures, d) of length 1.
    orders
        (n_permutations, n_pictures): in the null, picture i has the embedding of picture order[i].
    """
    images = np.diff(weights.indptr)
    score, error = scores_with_errors(weights, embeddings)
    null = np.stack([monosemanticity(weights, embeddings[order]) for order in orders])
    many = images >= FEWEST
    columns = {
        "monosemanticity": score,
        # Near -1 and 1 the normal interval would leave the range that cosines have.
        "monosemanticity_low": np.maximum(score - _Z * error, -1),
        "monosemanticity_high": np.minimum(score + _Z * error, 1),
        "monosemanticity_null": null.mean(axis=0),
        "monosemanticity_null_95": np.quantile(null, 0.95, axis=0),
        "monosemanticity_p": p_value(score, null),
    }
    return pl.DataFrame(
        {
            "latent": np.array(latents),
            "images": images,
            **{name: np.where(many, values, np.nan) for name, values in columns.items()},
        }
    )


def monosemanticity(weights: csr_array, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Score of every latent, (n_latents,); NaN where it is active in fewer than two pictures.

    Parameters
    ----------
    weights
        (n_latents, n_pictures) values, not negative.
    embeddings
        (n_pictures, d) of length 1.

    Examples
    --------
    >>> pair = np.array([[1.0, 0.0], [0.6, 0.8]])
    >>> float(monosemanticity(csr_array(np.array([[2.0, 5.0]])), pair)[0])
    0.6
    """
    return _ratio(*_pair_sums(weights, embeddings)[:2], np.diff(weights.indptr))


def scores_with_errors(
    weights: csr_array, embeddings: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the score of every latent and its standard error by leaving out each picture in turn, exactly."""
    above, below, directions, totals = _pair_sums(weights, embeddings)
    images = np.diff(weights.indptr)
    latent = np.repeat(np.arange(weights.shape[0]), images)
    value, squared = weights.data, weights.data**2
    # Without picture i, the sums lose its pairs with all others.
    similarity = np.empty(len(value))
    for start in range(0, len(value), _CHUNK):
        part = slice(start, start + _CHUNK)
        own = embeddings[weights.indices[part]]
        similarity[part] = (own * (directions[latent[part]] - value[part, None] * own)).sum(axis=1)
    left = _ratio(
        above[latent] - 2 * value * similarity,
        below[latent] - 2 * (value * totals[latent] - squared),
        images[latent] - 1,
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(latent, left, minlength=len(images)) / images
        squares = np.bincount(latent, (left - mean[latent]) ** 2, minlength=len(images))
        return _ratio(above, below, images), np.sqrt((images - 1) / images * squares)


def encoded(index_path: Path, encoder: Path, pictures: range, device: str) -> NDArray[np.float32]:
    """Pooled features of pictures (n_pictures, d), in float32."""
    model = load_model(encoder, chosen_device(device))
    where = next(model.parameters()).device
    paths = read_index(index_path)["path"][pictures.start : pictures.stop]
    found = []
    with progress_bar(len(paths), "embedding", "images") as bar:
        for start in range(0, len(paths), _BATCH_PICTURES):
            batch = torch.stack([pixels(path, model.card) for path in paths[start : start + _BATCH_PICTURES]])
            found.append(_pooled(model, batch.to(where)).float().cpu().numpy())
            bar.update(len(batch))
    return np.concatenate(found)


@torch.inference_mode()
def _pooled(model: VisionModel, batch: torch.Tensor) -> torch.Tensor:
    """What the model's own classifier reads, (batch, d)."""
    return model.module.forward_head(model.module.forward_features(model.normalized(batch)), pre_logits=True)


def mean_activations(manifest: Path, pictures: range) -> NDArray[np.float32]:
    """Mean patch activation of pictures (n_pictures, d_model), read a few at a time."""
    store = ActivationStore.open(manifest)
    parts = [
        store.read(range(start, min(start + _BATCH_PICTURES, pictures.stop)), "patches").float().mean(dim=1).numpy()
        for start in range(pictures.start, pictures.stop, _BATCH_PICTURES)
    ]
    return np.concatenate(parts)


def unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings of length 1; one of zeros stays so."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(length > 0, length, 1)).astype(np.float32)


def _pair_sums(
    weights: csr_array, embeddings: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weighted sums of similarities and of weights over pairs, then sums of w e and of w over pictures."""
    directions = weights @ embeddings
    totals = weights.sum(axis=1)
    squares = weights * weights
    above = (directions**2).sum(axis=1) - squares @ (embeddings.astype(np.float64) ** 2).sum(axis=1)
    return above, totals**2 - squares.sum(axis=1), directions, totals


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64], images: NDArray[np.integer]) -> NDArray[np.float64]:
    """Quotient; NaN where there are fewer than two pictures, and so no pair."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(images > 1, above / below, np.nan)
