"""How well single latents find the patches of each class: chosen on one split, measured on another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import FeatureSettings
from visae.data.index import read_classes
from visae.errors import DataError
from visae.features.concept_counts import (
    Counts,
    candidate_thresholds,
    considered_patches,
    count_active,
    counts_by_picture,
)
from visae.features.statistics import read_matching_manifest
from visae.files import atomic_path

LATENTS_PER_CLASS = 5
"""Latents that are reported for each class."""

MATCHED_LATENTS = 20
"""Latents of about the same frequency whose mean F1 is what chance reaches."""

RESAMPLES = 1000
"""Resamples of pictures behind each 95 % interval."""

SCHEMA = {
    "class_id": pl.Int32,
    "class_name": pl.String,
    "rank": pl.Int16,
    "latent": pl.Int32,
    "threshold": pl.Float32,
    "f1_fit": pl.Float64,
    "f1": pl.Float64,
    "f1_low": pl.Float64,
    "f1_high": pl.Float64,
    "precision": pl.Float64,
    "recall": pl.Float64,
    "n_patches_fit": pl.Int64,
    "n_patches": pl.Int64,
    "f1_random": pl.Float64,
}


@dataclass(frozen=True)
class Choice:
    """A latent and threshold chosen for a class; the numbers index the arrays of `Counts`."""

    class_number: int
    rank: int
    latent: int
    threshold_number: int


def write_scores(
    codes_manifest: Path,
    patch_labels: Path,
    index_path: Path,
    output: Path,
    settings: FeatureSettings,
    *,
    fit_split: str = "train",
    measure_split: str = "val",
    seed: int = 0,
) -> None:
    """Write scores.parquet: the latents that find each class best, with their F1 on pictures not used to choose.

    A patch counts where at least `settings.min_purity` of it carries one class; unlabelled patches (0) do not
    count at all. A latent predicts the class where it is above its threshold. Latent and threshold are chosen
    by F1 on `fit_split`; `f1`, `precision` and `recall` are those on `measure_split`, `f1_low` and `f1_high` its
    95 % interval over resampled pictures, and `f1_random` the mean F1 there of the 20 latents that are about
    as often active. What cannot be measured, for want of patches in a split, is null.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    patch_labels
        Parquet of image_id, token, label, purity.
    index_path
        Index of the data set.
    output
        Parquet file to write: `SCHEMA`, one row a class and rank (0 is the best on the fit split).
    settings
        Section `features`.
    fit_split, measure_split
        Split to choose on, and to measure on.
    seed
        Seed of the resampling.
    """
    manifest = read_matching_manifest(codes_manifest, index_path)
    classes = {number: name for number, name in sorted(read_classes(index_path).items()) if number != 0}
    labels = {}
    for split in (fit_split, measure_split):
        if split not in manifest["splits"]:
            raise DataError(f"{codes_manifest} has no split {split}, only {', '.join(manifest['splits'])}")
        first, stop = manifest["splits"][split]
        labels[split] = considered_patches(patch_labels, list(classes), settings.min_purity, first, stop)
    thresholds = candidate_thresholds(codes_manifest, labels[fit_split], manifest["width"])
    counts = {
        split: count_active(codes_manifest, labels[split], thresholds, len(classes)) for split in dict.fromkeys(labels)
    }
    choices = [
        choice
        for number in range(len(classes))
        for choice in best_latents(counts[fit_split], number, LATENTS_PER_CLASS)
    ]
    intervals = bootstrap_f1(codes_manifest, labels[measure_split], choices, thresholds, seed)
    table = _table(classes, choices, thresholds, counts[fit_split], counts[measure_split], intervals=intervals)
    with atomic_path(output) as temporary:
        table.write_parquet(temporary)


def best_latents(counts: Counts, class_number: int, n_latents: int) -> list[Choice]:
    """Return the latents with the highest F1 for a class, each with its best threshold; none without patches.

    Equal thresholds go to the lower one, equal latents to the lower number; F1 of 0 is never chosen.
    """
    if counts.positives[class_number] == 0:
        return []
    by_threshold = counts.f1(class_number)
    best = by_threshold.max(axis=1)
    order = np.argsort(-best, kind="stable")[:n_latents]
    return [
        Choice(class_number, rank, int(latent), int(by_threshold[latent].argmax()))
        for rank, latent in enumerate(order)
        if best[latent] > 0
    ]


def random_f1(fit: Counts, measured: Counts, choice: Choice) -> float:
    """Return the mean F1 on the measured split of the other latents that are about as often active on the fit split.

    Each latent takes part with that of its thresholds that comes closest to the frequency of the chosen one; the 20
    closest latents are taken, whatever they stand for.
    """
    predicted = fit.predicted.astype(np.float64)
    distance = np.abs(np.log(np.maximum(predicted, 0.5) / predicted[choice.latent, choice.threshold_number]))
    distance[choice.latent] = np.inf
    number = distance.argmin(axis=1)
    nearest = np.argsort(distance.min(axis=1), kind="stable")[: min(MATCHED_LATENTS, len(distance) - 1)]
    return float(measured.f1(choice.class_number)[nearest, number[nearest]].mean()) if len(nearest) else float("nan")


def bootstrap_f1(
    codes_manifest: Path, labels: pl.DataFrame, choices: list[Choice], thresholds: NDArray[np.float32], seed: int
) -> NDArray[np.float64]:
    """Return (n_choices, 2): the 95 % percentile interval of each F1 over resampled pictures; NaN without patches."""
    pictures = labels["image_id"].unique().sort()
    if not choices or not len(pictures):
        return np.full((len(choices), 2), np.nan)
    predictors = pl.DataFrame(
        {
            "latent": pl.Series([choice.latent for choice in choices], dtype=pl.Int32),
            "class_to_find": pl.Series([choice.class_number for choice in choices], dtype=pl.Int32),
            "threshold": pl.Series(
                [thresholds[choice.latent, choice.threshold_number] for choice in choices], dtype=pl.Float32
            ),
        }
    )
    hits, predicted = counts_by_picture(codes_manifest, labels, predictors, pictures)
    of_class = labels.group_by("image_id", "class_number").len()
    positives = np.zeros((1 + max(choice.class_number for choice in choices), len(pictures)))
    of_class = of_class.filter(pl.col("class_number") < len(positives))
    rows = pictures.search_sorted(of_class["image_id"]).to_numpy()
    positives[of_class["class_number"].to_numpy(), rows] = of_class["len"].to_numpy()
    denominator = predicted + positives[[choice.class_number for choice in choices]]

    random = np.random.default_rng(seed)
    scores = np.empty((RESAMPLES, len(choices)))
    for resample in range(RESAMPLES):
        times = np.bincount(random.integers(len(pictures), size=len(pictures)), minlength=len(pictures))
        with np.errstate(invalid="ignore"):
            scores[resample] = 2 * (hits @ times) / (denominator @ times)
    interval = np.full((len(choices), 2), np.nan)
    measurable = ~np.isnan(scores).all(axis=0)
    interval[measurable] = np.nanquantile(scores[:, measurable], [0.025, 0.975], axis=0).T
    return interval


def _table(
    classes: dict[int, str],
    choices: list[Choice],
    thresholds: NDArray[np.float32],
    fit: Counts,
    measured: Counts,
    *,
    intervals: NDArray[np.float64],
) -> pl.DataFrame:
    """Return the table of `SCHEMA`; a class without a choice has one row of nulls."""
    rows = []
    for number, (class_id, class_name) in enumerate(classes.items()):
        row = {
            "class_id": class_id,
            "class_name": class_name,
            "n_patches_fit": int(fit.positives[number]),
            "n_patches": int(measured.positives[number]),
        }
        of_class = [
            (choice, at) for choice, at in zip(choices, intervals, strict=True) if choice.class_number == number
        ]
        rows += [row | _scores(choice, thresholds, fit, measured, at) for choice, at in of_class] or [row | {"rank": 0}]
    return pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def _scores(
    choice: Choice, thresholds: NDArray[np.float32], fit: Counts, measured: Counts, interval: NDArray[np.float64]
) -> dict[str, float | int]:
    """Return the columns of one row that its choice decides; those on a split without patches are left out."""
    at = choice.latent, choice.threshold_number
    found: dict[str, float | int] = {
        "rank": choice.rank,
        "latent": choice.latent,
        "threshold": float(thresholds[at]),
        "f1_fit": float(fit.f1(choice.class_number)[at]),
    }
    positives = int(measured.positives[choice.class_number])
    if positives:
        hits, predicted = int(measured.hits[choice.latent, choice.class_number, at[1]]), int(measured.predicted[at])
        found |= {
            "f1": 2 * hits / (predicted + positives),
            "f1_low": float(interval[0]),
            "f1_high": float(interval[1]),
            # Of a latent that is silent on the whole split, recall is 0 and precision does not exist.
            "precision": hits / predicted if predicted else float("nan"),
            "recall": hits / positives,
            "f1_random": random_f1(fit, measured, choice),
        }
    return found
