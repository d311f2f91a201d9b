"""Counting on how many patches of each class each latent is active."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.features.codes import scan_codes
from visae.features.statistics import codes_by_latents

THRESHOLD_QUANTILES = (0.25, 0.5, 0.75, 0.9)
"""Besides 0, a latent's threshold may be one of these quantiles of its active values on the fit split."""

_N_THRESHOLDS = 1 + len(THRESHOLD_QUANTILES)
_THRESHOLDS = [f"threshold_{number}" for number in range(_N_THRESHOLDS)]


@dataclass(frozen=True)
class Counts:
    """Active patches of a split, by latent, class and threshold.

    Attributes
    ----------
    hits
        (width, n_classes, n_thresholds) patches of the class on which the latent is above the threshold.
    positives
        (n_classes,) patches of the class.
    """

    hits: NDArray[np.int32]
    positives: NDArray[np.int64]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(width, n_thresholds) patches of any class on which the latent is above the threshold."""
        return self.hits.sum(axis=1, dtype=np.int64)

    def f1(self, class_number: int) -> NDArray[np.float64]:
        """(width, n_thresholds) F1 of every latent and threshold against one class that has patches."""
        return 2 * self.hits[:, class_number] / (self.predicted + self.positives[class_number])


def considered_patches(
    patch_labels: Path, class_ids: list[int], min_purity: float, first: int, stop: int
) -> pl.DataFrame:
    """Return image_id, token and class_number (position in `class_ids`) of the pure, labelled patches of a split."""
    numbers = pl.LazyFrame(
        {
            "label": pl.Series(class_ids, dtype=pl.Int16),
            "class_number": pl.Series(range(len(class_ids)), dtype=pl.Int32),
        }
    )
    in_split = pl.col("image_id").is_between(first, stop, closed="left")
    return (
        pl.scan_parquet(patch_labels)
        .filter(in_split & (pl.col("purity") >= min_purity))
        .join(numbers, on="label")
        .select("image_id", "token", "class_number")
        .sort("image_id", "token")
        .collect()
    )


def candidate_thresholds(codes_manifest: Path, labels: pl.DataFrame, width: int) -> NDArray[np.float32]:
    """Return (width, n_thresholds): 0 and quantiles of each latent's active values; infinite where it has none."""
    thresholds = np.full((width, _N_THRESHOLDS), np.inf, dtype=np.float32)
    for codes in _labelled_codes(codes_manifest, labels):
        found = codes.group_by("latent").agg(
            pl.lit(0.0, dtype=pl.Float64).alias(_THRESHOLDS[0]),
            *(
                pl.col("value").cast(pl.Float64).quantile(share, "linear").alias(name)
                for name, share in zip(_THRESHOLDS[1:], THRESHOLD_QUANTILES, strict=True)
            ),
        )
        thresholds[found["latent"].to_numpy()] = found.select(_THRESHOLDS).to_numpy()
    return thresholds


def count_active(codes_manifest: Path, labels: pl.DataFrame, thresholds: NDArray[np.float32], n_classes: int) -> Counts:
    """Count the patches of each class on which each latent is above each of its thresholds."""
    hits = np.zeros((len(thresholds), n_classes, _N_THRESHOLDS), dtype=np.int32)
    by_latent = pl.DataFrame({name: thresholds[:, number] for number, name in enumerate(_THRESHOLDS)}).insert_column(
        0, pl.Series("latent", range(len(thresholds)), dtype=pl.Int32)
    )
    for codes in _labelled_codes(codes_manifest, labels):
        counted = (
            codes.join(by_latent, on="latent")
            .group_by("latent", "class_number")
            .agg((pl.col("value") > pl.col(name)).sum().alias(name) for name in _THRESHOLDS)
        )
        hits[counted["latent"].to_numpy(), counted["class_number"].to_numpy()] = counted.select(_THRESHOLDS).to_numpy()
    positives = np.bincount(labels["class_number"].to_numpy(), minlength=n_classes).astype(np.int64)
    return Counts(hits, positives)


def counts_by_picture(
    codes_manifest: Path,
    labels: pl.DataFrame,
    predictors: pl.DataFrame,
    pictures: pl.Series,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return hits and predicted patches of each predictor in each picture, float64 (n_predictors, n_pictures) each.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    labels
        From `considered_patches`.
    predictors
        latent, class_to_find and threshold, one row a predictor.
    pictures
        Sorted image_id of the pictures to report.
    """
    counted = (
        scan_codes(codes_manifest)
        .join(predictors.lazy().with_row_index("predictor"), on="latent")
        .filter(pl.col("value") > pl.col("threshold"))
        .join(labels.lazy(), on=["image_id", "token"])
        .group_by("predictor", "image_id")
        .agg(pl.len().alias("predicted"), (pl.col("class_number") == pl.col("class_to_find")).sum().alias("hits"))
        .collect()
    )
    hits, predicted = np.zeros((2, predictors.height, len(pictures)))
    at = counted["predictor"].to_numpy(), pictures.search_sorted(counted["image_id"]).to_numpy()
    hits[at] = counted["hits"].to_numpy()
    predicted[at] = counted["predicted"].to_numpy()
    return hits, predicted


def _labelled_codes(codes_manifest: Path, labels: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield latent, class_number and value on considered patches, a range of latents at a time."""
    for _, codes in codes_by_latents(codes_manifest):
        yield (codes.join(labels.lazy(), on=["image_id", "token"]).select("latent", "class_number", "value").collect())
