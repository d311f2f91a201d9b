"""The pictures in which each latent is most active, and where in them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from visae.config.settings import FeatureSettings
from visae.features.statistics import codes_by_latents, read_matching_manifest
from visae.files import atomic_path

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "latent": pl.Int32,
    "rank": pl.Int16,
    "image_id": pl.Int32,
    "token": pl.Int16,
    "value": pl.Float32,
    "tokens": pl.List(pl.Int16),
    "values": pl.List(pl.Float32),
}


def top_exemplars(codes: pl.LazyFrame, n_exemplars: int) -> pl.DataFrame:
    """Return the pictures with the largest patch values of each latent, each picture once.

    Of pictures with equal values the one with the lower image_id comes first; of equal patches in a
    picture, the one with the lower token is the peak.

    Parameters
    ----------
    codes
        image_id, token, latent, value: non-zero codes of patches.
    n_exemplars
        Pictures a latent; fewer where it is active in fewer.

    Returns
    -------
    DataFrame
        latent, rank (0 is the strongest), image_id, token and value of the peak patch, and tokens and
        values: every active patch of that latent in that picture, by token. Sorted by latent and rank.
    """
    # Two passes: first which pictures, then their patches. Lists of patches of all pictures would not fit.
    chosen = (
        codes.group_by("latent", "image_id")
        .agg(pl.col("value").max().alias("peak"))
        .sort("latent", "peak", "image_id", descending=[False, True, False])
        .with_columns(pl.int_range(pl.len(), dtype=pl.Int16).over("latent").alias("rank"))
        .filter(pl.col("rank") < n_exemplars)
        .select("latent", "image_id", "rank")
        .collect()
    )
    return (
        codes.join(chosen.lazy(), on=["latent", "image_id"])
        .sort("latent", "rank", "token")
        .group_by("latent", "rank", "image_id", maintain_order=True)
        .agg(pl.col("token").alias("tokens"), pl.col("value").alias("values"))
        .with_columns(
            pl.col("tokens").list.get(pl.col("values").list.arg_max()).alias("token"),
            pl.col("values").list.max().alias("value"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        .collect()
    )


def write_exemplars(codes_manifest: Path, index_path: Path, output: Path, settings: FeatureSettings) -> None:
    """Write exemplars.parquet: `top_exemplars` of every latent that is ever active.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    index_path
        Index of the data set that they describe.
    output
        Parquet file to write.
    settings
        Section `features`.
    """
    read_matching_manifest(codes_manifest, index_path)
    blocks = [top_exemplars(codes, settings.exemplars) for _, codes in codes_by_latents(codes_manifest)]
    with atomic_path(output) as temporary:
        pl.concat(blocks).write_parquet(temporary)
