"""How well single latents tell the pictures of each class from all others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from visae.config.settings import FeatureSettings
from visae.data.index import read_classes, read_index
from visae.data.split_names import Splits
from visae.errors import DataError
from visae.features.blocks import codes_by_latents, read_matching_manifest
from visae.features.concepts import BLOCK_CODES, Labels
from visae.features.scores import SCHEMA as PATCH_SCHEMA
from visae.features.scores import pictures_of, score_table
from visae.files import write_table

POOLINGS = ("max", "sum")
"""How the values of a picture's patches become one: the largest, or their sum."""

SCHEMA = {"pooling": pl.String} | {name.replace("n_patches", "n_images"): dtype for name, dtype in PATCH_SCHEMA.items()}


def write_image_scores(
    codes_manifest: Path,
    index_path: Path,
    output: Path,
    settings: FeatureSettings,
    *,
    splits: Splits = Splits(),  # noqa: B008  frozen
    seed: int = 0,
    ties: np.random.Generator | None = None,
) -> None:
    """Write image_scores.parquet: the latents that tell each class's pictures best from all others.

    A picture's value of a latent is its largest patch value (`pooling` max) or the sum of all (sum). Latents are
    chosen by ROC AUC on `fit_split` and measured on `measure_split`; columns are those of scores.parquet, with
    pictures in place of patches.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    index_path
        Index of the data set, which has the labels.
    output
        Parquet file to write: `SCHEMA`, one row a pooling, class and rank (0 is the best on the fit split).
    settings
        Section `features`.
    splits
        Split to choose on, and to measure on.
    seed
        Seed of the resampling and of the permutations.
    ties
        For checks of calibration alone: see `visae.features.resampling.tail_share`.

    Raises
    ------
    DataError
        If the data set has no labels.
    """
    manifest = read_matching_manifest(codes_manifest, index_path)
    classes = dict(sorted(read_classes(index_path).items()))
    labels = [
        image_classes(index_path, list(classes), pictures_of(manifest, split, codes_manifest)) for split in splits
    ]
    tables = []
    for pooling in POOLINGS:

        def blocks(pooling: str = pooling) -> Iterator[tuple[range, pl.LazyFrame]]:
            for latents, codes in codes_by_latents(codes_manifest, BLOCK_CODES):
                yield latents, pooled(codes, pooling)

        table = score_table(blocks, classes, labels, "auc", settings.permutations, seed, ties)
        tables.append(table.with_columns(pl.lit(pooling).alias("pooling")))
    renamed = pl.concat(tables).rename({"n_patches": "n_images", "n_patches_fit": "n_images_fit"})
    write_table(output, renamed.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()))


def pooled(codes: pl.LazyFrame, pooling: str) -> pl.LazyFrame:
    """Pool codes over the patches of a picture: image_id, token (0), latent, value."""
    # Summed as float64: the order of the threads then leaves no trace.
    value = pl.col("value").max() if pooling == "max" else pl.col("value").cast(pl.Float64).sum().cast(pl.Float32)
    return codes.group_by("latent", "image_id").agg(value).with_columns(token=pl.lit(0, dtype=pl.Int32))


def image_classes(index_path: Path, class_ids: list[int], pictures: range) -> Labels:
    """Return the classes (positions in `class_ids`) of consecutive pictures.

    Raises
    ------
    DataError
        If none of them has a label.
    """
    label = read_index(index_path)["label"][pictures.start : pictures.stop]
    if label.null_count() == len(label):
        raise DataError(f"{index_path}: the pictures have no labels; image scores need a data set with classes")
    numbers = label.replace_strict(class_ids, range(len(class_ids)), default=-1, return_dtype=pl.Int32)
    classes = numbers.fill_null(-1).to_numpy()[:, None].astype(np.int32)
    return Labels(pictures, classes, len(class_ids))
