"""How often and how strongly each latent is active."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from visae.data.index import read_index
from visae.errors import StoreError
from visae.features.codes import read_codes_manifest, scan_codes
from visae.files import atomic_path, read_json

DENSE_FREQUENCY = 0.1
"""A latent active on more than this share of the patches is dense: too common to stand for one concept."""

QUANTILES = (50, 90, 99)
"""Percentiles of the active values that stats.parquet has a column for."""

BLOCK_ROWS = 200_000_000
"""Codes worked on at once: some 5 GB. More are worked through as ranges of latents, one after the other."""


def read_matching_manifest(codes_manifest: Path, index_path: Path) -> dict[str, Any]:
    """Return the codes' manifest; StoreError where the codes are not of the pictures in the index."""
    manifest = read_codes_manifest(codes_manifest)
    n_indexed = read_index(index_path).height
    if manifest["n_images"] != n_indexed:
        raise StoreError(
            f"{codes_manifest} describes {manifest['n_images']} pictures, but {index_path} lists {n_indexed}: "
            "they are of different data sets; write the codes again from the activations of this index"
        )
    return manifest


def codes_by_latents(codes_manifest: Path, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[range, pl.LazyFrame]]:
    """Yield the codes in ranges of latents, so that what is grouped by latent at once fits into memory.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    block_rows
        Codes in a range, if all latents were equally frequent; fewer codes than that are one range.

    Yields
    ------
    latents, codes
        The range of latents, and a lazy frame of their codes: image_id, token, latent, value.
    """
    manifest = read_codes_manifest(codes_manifest)
    n_codes = sum(shard["rows"] for shard in manifest["shards"])
    n_blocks = max(1, math.ceil(n_codes / block_rows))
    block = max(1, math.ceil(manifest["width"] / n_blocks))
    for start in range(0, manifest["width"], block):
        latents = range(start, min(start + block, manifest["width"]))
        codes = scan_codes(codes_manifest)
        if len(latents) < manifest["width"]:
            codes = codes.filter(pl.col("latent").is_between(latents.start, latents.stop, closed="left"))
        yield latents, codes


def latent_statistics(
    codes: pl.LazyFrame, latents: range, n_tokens: int, splits: dict[str, tuple[int, int]]
) -> pl.DataFrame:
    """Describe every latent of a range by its active values, over all splits.

    Parameters
    ----------
    codes
        image_id, token, latent, value: the non-zero codes of `latents`.
    latents
        Latents to report, active or not.
    n_tokens
        Patches that were encoded.
    splits
        Split name to its first image_id and the one after its last.

    Returns
    -------
    DataFrame
        One row a latent: latent; count (patches it is active on); frequency (count / n_tokens);
        log10_frequency; mean, max, standard_deviation, quantile_50, quantile_90 and quantile_99 of its
        active values; images (that it is active in); dead (never active); dense (frequency above 0.1);
        max_SPLIT, the largest value in each split. What does not exist, as the mean of a dead latent, is null.
    """
    value = pl.col("value")
    described = codes.group_by("latent").agg(
        pl.len().alias("count"),
        # Summed as float64 and stored as float32: the order of the threads then leaves no trace.
        value.cast(pl.Float64).mean().cast(pl.Float32).alias("mean"),
        value.max().alias("max"),
        value.cast(pl.Float64).std(ddof=0).cast(pl.Float32).alias("standard_deviation"),
        *(
            value.cast(pl.Float64).quantile(percent / 100, "linear").cast(pl.Float32).alias(f"quantile_{percent}")
            for percent in QUANTILES
        ),
        pl.col("image_id").n_unique().alias("images"),
        *(
            value.filter(pl.col("image_id").is_between(first, stop, closed="left")).max().alias(f"max_{split}")
            for split, (first, stop) in splits.items()
        ),
    )
    every = pl.LazyFrame({"latent": pl.Series(latents, dtype=pl.Int32)})
    frequency = pl.col("count") / n_tokens
    return (
        every.join(described, on="latent", how="left")
        .with_columns(pl.col("count").fill_null(0).cast(pl.Int64), pl.col("images").fill_null(0).cast(pl.Int32))
        .with_columns(
            frequency.alias("frequency"),
            pl.when(pl.col("count") > 0).then(frequency.log10()).alias("log10_frequency"),
            (pl.col("count") == 0).alias("dead"),
            (frequency > DENSE_FREQUENCY).alias("dense"),
        )
        .select(
            *("latent", "count", "frequency", "log10_frequency", "mean", "max", "standard_deviation"),
            *(f"quantile_{percent}" for percent in QUANTILES),
            *("images", "dead", "dense"),
            *(f"max_{split}" for split in splits),
        )
        .sort("latent")
        .collect()
    )


def write_statistics(codes_manifest: Path, sae_config: Path, index_path: Path, output: Path) -> None:
    """Write stats.parquet: `latent_statistics` of every latent of the SAE.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    sae_config
        config.json of the SAE that wrote them.
    index_path
        Index of the data set that they describe.
    output
        Parquet file to write.
    """
    manifest = read_matching_manifest(codes_manifest, index_path)
    sae_width = read_json(sae_config)["width"]
    if sae_width != manifest["width"]:
        raise StoreError(
            f"{codes_manifest} has {manifest['width']} latents, but {sae_config} {sae_width}: "
            "the SAE was trained again since; write the codes again"
        )
    splits = {name: (first, stop) for name, (first, stop) in manifest["splits"].items()}
    blocks = [
        latent_statistics(codes, latents, manifest["n_tokens"], splits)
        for latents, codes in codes_by_latents(codes_manifest)
    ]
    with atomic_path(output) as temporary:
        pl.concat(blocks).write_parquet(temporary)
