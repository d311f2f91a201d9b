"""What each latent does, in numbers: how often, how strongly, where and on what it is active, and what is like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from visae.config.settings import FeatureSettings
from visae.data.index import read_classes, read_index
from visae.errors import StoreError
from visae.features.blocks import codes_by_latents, read_matching_manifest
from visae.features.codes import scan_codes, tokens_of, with_kind
from visae.features.neighbours import bias_alignment, nearest_by_coactivation, nearest_by_decoder
from visae.files import atomic_path
from visae.sae.autoencoder import load_sae

DENSE_FREQUENCY = 0.1
"""A latent active on more than this share of the patches is dense: too common to stand for one concept."""

QUANTILES = (50, 90, 99)
"""Percentiles of the active values that stats.parquet has a column for."""

TOP_LABELS = 3
"""Labels named for each latent."""


def latent_statistics(
    codes: pl.LazyFrame,
    latents: range,
    n_tokens: int,
    splits: dict[str, tuple[int, int]],
    labels: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Describe every latent of a range by its active values, over all splits.

    Parameters
    ----------
    codes
        image_id, token, latent, value: the non-zero codes of `latents`, of the tokens that the SAE is of.
    latents
        Latents to report, active or not.
    n_tokens
        Tokens of that kind that were encoded.
    splits
        Split name to its first image_id and the one after its last.
    labels
        label (text) by image_id, or by image_id and token; what has none is left out.

    Returns
    -------
    DataFrame
        One row a latent: latent; count (tokens it is active on); frequency (count / n_tokens);
        log10_frequency; mean, max, standard_deviation, quantile_50, quantile_90 and quantile_99 of its
        active values; images (that it is active in); dead (never active); dense (frequency above 0.1);
        max_SPLIT, the largest value in each split; spatial_entropy, in bits, of where on the patch grid it is active
        (0: always at one place; log2 of the number of patches: everywhere alike); and, where labels are given,
        label_entropy, in bits, top_labels and top_label_shares, of how its activation (the sum of its values) is
        shared between labels. What does not exist, as the mean of a dead latent, is null.
    """
    # Read once; what follows are several groupings.
    read = codes.collect(engine="streaming")
    codes = read.lazy()
    value = pl.col("value")
    described = codes.group_by("latent").agg(
        pl.len().alias("count"),
        # Summed as float64 and stored as float32: the order of the threads then leaves no trace.
        value.cast(pl.Float64).mean().cast(pl.Float32).alias("mean"),
        value.max().alias("max"),
        value.cast(pl.Float64).std(ddof=0).cast(pl.Float32).alias("standard_deviation"),
        *(
            value.quantile(percent / 100, "linear").cast(pl.Float32).alias(f"quantile_{percent}")
            for percent in QUANTILES
        ),
        pl.col("image_id").n_unique().alias("images"),
        *(
            value.filter(pl.col("image_id").is_between(first, stop, closed="left")).max().alias(f"max_{split}")
            for split, (first, stop) in splits.items()
        ),
    )
    every = pl.LazyFrame(
        {"latent": pl.Series(latents, dtype=pl.Int32), "spatial_entropy": _spatial_entropy(read, latents)}
    )
    frequency = pl.col("count") / n_tokens
    return (
        every.join(described, on="latent", how="left")
        .join(_label_shares(codes, labels), on="latent", how="left")
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
            *("spatial_entropy", "label_entropy", "top_labels", "top_label_shares"),
        )
        .sort("latent")
        .collect()
    )


def _spatial_entropy(codes: pl.DataFrame, latents: range) -> pl.Series:
    """Entropy, in bits, of where each latent is active; null where it never is."""
    # One count of pairs, ten times as fast as a grouping by two keys. Class tokens and registers come before patches.
    tokens = codes["token"].to_numpy().astype(np.int64)
    first = int(tokens.min(initial=0))
    n_places = 1 + int(tokens.max(initial=first)) - first
    pairs = (codes["latent"].to_numpy().astype(np.int64) - latents.start) * n_places + tokens - first
    counts = np.bincount(pairs, minlength=len(latents) * n_places).reshape(len(latents), n_places)
    total = counts.sum(axis=1)
    # The entropy of counts n that sum to N is log N - sum(n log n) / N.
    weighted = (counts * np.log2(np.maximum(counts, 1))).sum(axis=1)
    found = np.log2(np.maximum(total, 1)) - weighted / np.maximum(total, 1)
    return pl.Series(found.clip(min=0), dtype=pl.Float32).set(pl.Series(total == 0), None)


def _entropy(column: str) -> pl.Expr:
    """Entropy, in bits, of a group whose parts have these sizes."""
    # Not below zero: rounding could bring it there where a part is all.
    return pl.col(column).cast(pl.Float64).entropy(base=2).clip(lower_bound=0).cast(pl.Float32)


def _label_shares(codes: pl.LazyFrame, labels: pl.DataFrame | None) -> pl.LazyFrame:
    """How each latent's activation is shared between labels; without labels there are no rows."""
    keys = ["image_id"] if labels is None or "token" not in labels.columns else ["image_id", "token"]
    if labels is None:
        labels = pl.DataFrame(schema={"image_id": pl.Int32, "label": pl.String})
    share = pl.col("value") / pl.col("value").sum()
    return (
        codes.join(labels.lazy().with_columns(pl.col("label").cast(pl.Categorical)), on=keys)
        .group_by("latent", "label")
        # Rounded once, so that labels which tie do so whatever the order of the threads.
        .agg(pl.col("value").cast(pl.Float64).sum().cast(pl.Float32).cast(pl.Float64))
        .sort("latent", "value", pl.col("label").cast(pl.String), descending=[False, True, False])
        .group_by("latent")
        .agg(
            _entropy("value").alias("label_entropy"),
            pl.col("label").cast(pl.String).head(TOP_LABELS).alias("top_labels"),
            share.head(TOP_LABELS).cast(pl.Float32).alias("top_label_shares"),
        )
    )


def kind_shares(codes: pl.LazyFrame) -> pl.DataFrame:
    """Of the tokens that each latent is active on, the shares that are patches, class tokens and registers.

    Parameters
    ----------
    codes
        token and latent: non-zero codes of all kinds of tokens.

    Returns
    -------
    DataFrame
        latent, patch_share, class_share, register_share.
    """
    token = pl.col("token")
    kinds = {"patch_share": token >= 0, "class_share": token == -1, "register_share": token < -1}
    return (
        codes.group_by("latent")
        .agg(kind.mean().cast(pl.Float32).alias(name) for name, kind in kinds.items())
        .sort("latent")
        .collect(engine="streaming")
    )


def write_statistics(
    codes_manifest: Path,
    sae_config: Path,
    index_path: Path,
    output: Path,
    settings: FeatureSettings,
    *,
    patch_labels: Path | None = None,
) -> None:
    """Write stats.parquet: one row a latent of the SAE.

    Its columns are those of `latent_statistics` and `kind_shares`, bias_alignment (cosine of the decoder row with
    what the SAE gives without any latent), and those of `nearest_by_decoder` and `nearest_by_coactivation`. They count
    the tokens that the SAE was trained on; where those are not patches, a column `tokens` says so.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    sae_config
        config.json of the SAE that wrote them.
    index_path
        Index of the data set that they describe; its labels count where there are no patch labels.
    output
        Parquet file to write.
    settings
        Section `features`.
    patch_labels
        Parquet of image_id, token, label, purity; without effect on SAEs of class tokens.
    """
    manifest, sae = read_matching_manifest(codes_manifest, index_path), load_sae(sae_config)
    if sae.width != manifest["width"]:
        raise StoreError(
            f"{codes_manifest} has {manifest['width']} latents, but {sae_config} {sae.width}: "
            "the SAE was trained again since; write the codes again"
        )
    splits = {name: (first, stop) for name, (first, stop) in manifest["splits"].items()}
    kinds = tokens_of(manifest)
    labels = _labels(index_path, None if kinds == "class" else patch_labels, settings.min_purity)
    blocks = [
        latent_statistics(codes, latents, manifest["n_tokens"], splits, labels)
        for latents, codes in codes_by_latents(codes_manifest)
    ]
    table = (
        pl.concat(blocks)
        .join(kind_shares(scan_codes(codes_manifest, "all")), on="latent", how="left")
        .with_columns(pl.Series("bias_alignment", bias_alignment(sae)))
        .join(nearest_by_decoder(sae.raw_rows()), on="latent")
        .join(nearest_by_coactivation(codes_manifest), on="latent")
        .sort("latent")
    )
    with atomic_path(output) as temporary:
        with_kind(table, kinds).write_parquet(temporary)


def _labels(index_path: Path, patch_labels: Path | None, min_purity: float) -> pl.DataFrame:
    """Labels by image_id and token where patches have them, else by image_id."""
    if patch_labels is None:
        return read_index(index_path).select("image_id", label="label_name").drop_nulls()
    names = pl.DataFrame(
        [(number, name) for number, name in read_classes(index_path).items() if number != 0],
        schema={"number": pl.Int16, "label": pl.String},
        orient="row",
    )
    pure = pl.read_parquet(patch_labels).filter(pl.col("purity") >= min_purity).rename({"label": "number"})
    return pure.join(names, on="number").select("image_id", "token", "label")
