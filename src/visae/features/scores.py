"""How well single latents find the patches of each class: chosen on one split, measured on another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import FeatureSettings
from visae.data.index import read_classes
from visae.data.split_names import Splits
from visae.errors import DataError
from visae.features.blocks import codes_by_latents, read_matching_manifest
from visae.features.concepts import (
    BLOCK_CODES,
    METRICS,
    Blocks,
    Choice,
    Chosen,
    Labels,
    Measured,
    choose,
    measure,
)
from visae.features.resampling import benjamini_hochberg, p_value
from visae.files import write_table

NULL_QUANTILE = 0.95
"""What the best of all latents reaches by chance: exceeded in 5 % of the permutations."""

SCHEMA = {
    "class_id": pl.Int32,
    "class_name": pl.String,
    "rank": pl.Int16,
    "latent": pl.Int32,
    "threshold": pl.Float32,
    "precision": pl.Float64,
    "recall": pl.Float64,
    "n_patches_fit": pl.Int64,
    "n_patches": pl.Int64,
    "f1_random": pl.Float64,
} | {
    f"{metric}{ending}": pl.Float64
    for metric in METRICS
    for ending in ("_fit", "", "_low", "_high", "_null", "_p", "_q", "_best", "_null_best", "_p_best")
}


def write_scores(
    codes_manifest: Path,
    patch_labels: Path,
    index_path: Path,
    output: Path,
    settings: FeatureSettings,
    *,
    splits: Splits = Splits(),  # noqa: B008  frozen
    seed: int = 0,
    ties: np.random.Generator | None = None,
) -> None:
    """Write scores.parquet: the latents that find each class best, with their scores on pictures not used to choose.

    A patch counts where at least `settings.min_purity` of it carries one class; unlabelled patches (0) do not count
    at all. Latents, and the threshold above which they predict the class, are chosen by F1 on `fit_split` and
    measured on `measure_split`. docs/features.md explains every column. What cannot be measured, for want of patches
    in a split, is null.

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
    splits
        Split to choose on, and to measure on.
    seed
        Seed of the resampling and of the permutations.
    ties
        For checks of calibration alone: see `visae.features.resampling.tail_share`.
    """
    manifest = read_matching_manifest(codes_manifest, index_path)
    classes = {number: name for number, name in sorted(read_classes(index_path).items()) if number != 0}
    labels = [
        patch_classes(patch_labels, list(classes), settings.min_purity, pictures_of(manifest, split, codes_manifest))
        for split in splits
    ]

    def blocks() -> Iterator[tuple[range, pl.LazyFrame]]:
        return codes_by_latents(codes_manifest, BLOCK_CODES, "patches")

    table = score_table(blocks, classes, labels, "f1", settings.permutations, seed, ties)
    write_table(output, table.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()))


def pictures_of(manifest: dict[str, Any], split: str, codes_manifest: Path) -> range:
    """Return the image_id of a split's pictures; DataError where the codes have no such split."""
    if split not in manifest["splits"]:
        raise DataError(f"{codes_manifest} has no split {split}, only {', '.join(manifest['splits'])}")
    return range(*manifest["splits"][split])


def patch_classes(patch_labels: Path, class_ids: list[int], min_purity: float, pictures: range) -> Labels:
    """Return the classes (positions in `class_ids`) of the pure, labelled patches of consecutive pictures."""
    in_split = pl.col("image_id").is_between(pictures.start, pictures.stop, closed="left")
    found = (
        pl.scan_parquet(patch_labels)
        .filter(in_split & (pl.col("token") >= 0))
        .select(
            pl.col("image_id") - pictures.start,
            "token",
            pl.when(pl.col("purity") >= min_purity).then(pl.col("label")).otherwise(None),
        )
        .collect()
    )
    n_tokens = 0 if found.is_empty() else int(found["token"].max()) + 1  # type: ignore[arg-type]
    classes = np.full((len(pictures), n_tokens), -1, dtype=np.int16)
    numbers = found["label"].replace_strict(class_ids, range(len(class_ids)), default=-1, return_dtype=pl.Int16)
    classes[found["image_id"].to_numpy(), found["token"].to_numpy()] = numbers.fill_null(-1).to_numpy()
    return Labels(pictures, classes, len(class_ids))


def score_table(
    blocks: Blocks,
    classes: dict[int, str],
    labels: list[Labels],
    by: str,
    n_permutations: int,
    seed: int,
    ties: np.random.Generator | None = None,
) -> pl.DataFrame:
    """Choose latents for each class on one split and measure them on another.

    Parameters
    ----------
    blocks
        Gives the codes, a range of latents at a time.
    classes
        Class id to name, in the order of class numbers.
    labels
        Of the split to choose on, and of the one to measure on.
    by
        Which of `METRICS` decides.
    n_permutations, seed
        Permutations behind each null; seed of those and of the intervals.
    ties
        For checks of calibration alone: see `visae.features.resampling.tail_share`.

    Returns
    -------
    DataFrame
        Columns of `SCHEMA`; a class without a choice has one row of nulls.
    """
    fit, measured_on = labels
    chosen = choose(blocks, fit, by)
    measured = measure(blocks, chosen, measured_on, n_permutations, seed)
    p = p_value(measured.scores, measured.null, ties)
    p_best = p_value(measured.largest, measured.null_largest, ties)
    rows: list[dict[str, Any]] = []
    for number, (class_id, class_name) in enumerate(classes.items()):
        row = {
            "class_id": class_id,
            "class_name": class_name,
            "n_patches_fit": int(fit.positives[number]),
            "n_patches": int(measured_on.positives[number]),
        }
        of_class = [
            row
            | _of_choice(choice, chosen)
            | (_of_measured(number, place, measured, p, p_best) if measured_on.positives[number] else {})
            for place, choice in enumerate(chosen.choices)
            if choice.class_number == number
        ]
        rows += of_class or [row | {"rank": 0}]
    table = pl.DataFrame(rows, schema={name: kind for name, kind in SCHEMA.items() if not name.endswith("_q")})
    return _with_discovery_rates(table).with_columns(pl.col(pl.Float64).fill_nan(None))


def _of_choice(choice: Choice, chosen: Chosen) -> dict[str, Any]:
    """Return the columns of one row that the fit split decides."""
    return {
        "rank": choice.rank,
        "latent": choice.latent,
        "threshold": float(chosen.thresholds[choice.latent, choice.threshold_number]),
        **{f"{metric}_fit": value for metric, value in zip(METRICS, choice.fit, strict=True)},
    }


def _of_measured(
    class_number: int, place: int, measured: Measured, p: NDArray[np.float64], p_best: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the columns of one row that the measured split decides; `place` is that of the choice."""
    found: dict[str, Any] = {
        "precision": float(measured.precision[place]),
        "recall": float(measured.recall[place]),
        "f1_random": float(measured.matched_f1[place]),
    }
    for number, metric in enumerate(METRICS):
        found |= {
            metric: float(measured.scores[number, place]),
            f"{metric}_low": float(measured.intervals[number, place, 0]),
            f"{metric}_high": float(measured.intervals[number, place, 1]),
            f"{metric}_null": float(measured.null[:, number, place].mean()),
            f"{metric}_p": float(p[number, place]),
            f"{metric}_best": float(measured.largest[number, class_number]),
            f"{metric}_null_best": float(np.quantile(measured.null_largest[:, number, class_number], NULL_QUANTILE)),
            f"{metric}_p_best": float(p_best[number, class_number]),
        }
    return found


def _with_discovery_rates(table: pl.DataFrame) -> pl.DataFrame:
    """Add the columns _q: _p corrected for the number of classes, among the rows of one rank."""
    return table.with_columns(
        pl.col(f"{metric}_p")
        .map_batches(lambda p: pl.Series(benjamini_hochberg(p.fill_null(np.nan).to_numpy())), return_dtype=pl.Float64)
        .over("rank")
        .alias(f"{metric}_q")
        for metric in METRICS
    )
