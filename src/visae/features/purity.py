"""Whether a latent's strongest pictures carry one label, and how many of that label's pictures it covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import FeatureSettings
from visae.data.index import read_classes
from visae.data.split_names import Splits
from visae.features.blocks import codes_by_latents, read_matching_manifest
from visae.features.concepts import BLOCK_CODES, Labels
from visae.features.image_scores import image_classes
from visae.features.resampling import benjamini_hochberg, permutations, tail_share, wilson_interval
from visae.features.scores import patch_classes, pictures_of
from visae.files import write_table

PERMUTATIONS_FACTOR = 10
"""Permutations for each of `features.permutations`: cheap here, and thousands of latents ask for small p-values."""

SCHEMA = {
    "latent": pl.Int32,
    "class_id": pl.Int32,
    "class_name": pl.String,
    "purity_fit": pl.Float64,
    "n_fit": pl.Int32,
    "n": pl.Int32,
    "n_pictures": pl.Int32,
} | {
    f"{score}{ending}": pl.Float64
    for score in ("purity", "coverage")
    for ending in ("", "_low", "_high", "_null", "_p", "_q")
}


def write_purity(
    codes_manifest: Path,
    index_path: Path,
    output: Path,
    settings: FeatureSettings,
    patch_labels: Path | None = None,
    *,
    splits: Splits = Splits(),  # noqa: B008  frozen
    seed: int = 0,
    ties: np.random.Generator | None = None,
) -> None:
    """Write purity.parquet: the label of each latent's strongest pictures, and whether others confirm it.

    The label is the most frequent one among the `settings.purity_at` pictures of `fit_split` with the largest patch
    values; `purity` is its share among those of `measure_split`, `coverage` the share of that split's pictures with
    the label in which the latent is active at all. With patch labels, a picture's label is that of its strongest
    patch, else the picture's own. docs/features.md explains every column.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    index_path
        Index of the data set.
    output
        Parquet file to write: `SCHEMA`, one row a latent; null where it is silent.
    settings
        Section `features`.
    patch_labels
        Parquet of image_id, token, label, purity; left out, pictures' own labels are taken.
    splits
        Split to choose on, and to measure on.
    seed
        Seed of the permutations.
    ties
        For checks of calibration alone: see `visae.features.resampling.tail_share`.
    """
    manifest = read_matching_manifest(codes_manifest, index_path)
    classes = dict(sorted(read_classes(index_path).items()))
    if patch_labels is not None:
        classes.pop(0, None)
    fit, measured = (
        image_classes(index_path, list(classes), pictures)
        if patch_labels is None
        else patch_classes(patch_labels, list(classes), settings.min_purity, pictures)
        for pictures in (pictures_of(manifest, split, codes_manifest) for split in splits)
    )
    orders = permutations(len(measured.pictures), PERMUTATIONS_FACTOR * settings.permutations, seed)
    tables = [
        _of_block(codes, latents, fit, measured, settings.purity_at, orders, ties)
        # Labels of patches are asked at patches; labels of pictures at any token.
        for latents, codes in codes_by_latents(codes_manifest, BLOCK_CODES, None if patch_labels is None else "patches")
    ]
    names = pl.DataFrame(
        {"class_number": range(len(classes)), "class_id": list(classes), "class_name": list(classes.values())},
        schema={"class_number": pl.Int64, "class_id": pl.Int32, "class_name": pl.String},
    )
    table = pl.concat(tables).join(names, on="class_number", how="left", maintain_order="left")
    table = table.with_columns(
        pl.Series(f"{score}_q", benjamini_hochberg(table[f"{score}_p"].to_numpy())) for score in ("purity", "coverage")
    )
    table = table.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
    write_table(output, table.with_columns(pl.col(pl.Float64).fill_nan(None)))


def strongest(codes: pl.LazyFrame, latents: range, pictures: range, k: int) -> tuple[NDArray, NDArray, NDArray]:
    """Find each latent's k pictures with the largest patch values, and that patch.

    Returns
    -------
    tuple
        Picture, counted from the first, and token of the patch, int (n_latents, k) each, -1 where there are fewer;
        and the number of pictures in which the latent is active, (n_latents,).
    """
    peaks = (
        codes.filter(pl.col("image_id").is_between(pictures.start, pictures.stop, closed="left"))
        .filter(pl.col("value") > 0)
        .group_by("latent", "image_id")
        # Of equal patches the first.
        .agg(
            pl.col("value").max().alias("peak"),
            pl.col("token").sort_by("value", "token", descending=[True, False]).first(),
        )
        .sort("latent", "peak", "image_id", descending=[False, True, False])
        .with_columns(rank=pl.int_range(pl.len()).over("latent"), active=pl.len().over("latent"))
        .filter(pl.col("rank") < k)
        .collect()
    )
    latent = peaks["latent"].to_numpy() - latents.start
    rank = peaks["rank"].to_numpy()
    picture, token = np.full((2, len(latents), k), -1)
    picture[latent, rank] = peaks["image_id"].to_numpy() - pictures.start
    token[latent, rank] = peaks["token"].to_numpy()
    active = np.zeros(len(latents), dtype=np.int64)
    active[latent] = peaks["active"].to_numpy()
    return picture, token, active


def _of_block(
    codes: pl.LazyFrame,
    latents: range,
    fit: Labels,
    measured: Labels,
    k: int,
    orders: NDArray[np.int32],
    ties: np.random.Generator | None = None,
) -> pl.DataFrame:
    """Rows of a range of latents, with class numbers in place of ids."""
    rows = np.arange(len(latents))
    counts = np.zeros((len(latents), fit.n_classes), dtype=np.int64)
    own = labels_at(fit, *strongest(codes, latents, fit.pictures, k)[:2])
    np.add.at(counts, (np.repeat(rows, k)[own.ravel() >= 0], own.ravel()[own.ravel() >= 0]), 1)
    n_fit = counts.sum(axis=1)
    label = np.where(n_fit > 0, counts.argmax(axis=1), -1)

    picture, token, active = strongest(codes, latents, measured.pictures, k)
    hits, n = _agreeing(labels_at(measured, picture, token), label)
    purity = _share(hits, n)
    p, null = _by_chance(purity, measured, picture, token, label, orders, ties)

    shown = np.stack([(measured.classes == number).any(axis=1) for number in range(measured.n_classes)])
    n_pictures = np.where(label >= 0, shown.sum(axis=1)[label], 0)
    covered = _covered(codes, latents, measured.pictures, shown, label)
    coverage = _share(covered, n_pictures)
    from scipy.stats import hypergeom  # scipy.stats takes half a second: who only reads tables does not wait for it

    # With labels moved at random between pictures, how many the latent meets has a distribution in closed form.
    met = hypergeom(shown.shape[1], n_pictures, active)
    coverage_p = tail_share(met.sf(covered), met.pmf(covered), 1, ties)
    return pl.DataFrame(
        {
            "latent": np.array(latents),
            "class_number": pl.Series(label.astype(np.int64)),
            "purity_fit": _share(counts.max(axis=1), n_fit),
            "n_fit": n_fit,
            "n": n,
            "n_pictures": n_pictures,
            "purity": purity,
            "purity_low": wilson_interval(hits, n)[0],
            "purity_high": wilson_interval(hits, n)[1],
            "purity_null": null,
            "purity_p": p,
            "coverage": coverage,
            "coverage_low": wilson_interval(covered, n_pictures)[0],
            "coverage_high": wilson_interval(covered, n_pictures)[1],
            "coverage_null": np.where(n_pictures > 0, active / shown.shape[1], np.nan),
            "coverage_p": np.where(n_pictures > 0, coverage_p, np.nan),
        }
    )


def labels_at(labels: Labels, picture: NDArray, token: NDArray, order: NDArray | None = None) -> NDArray:
    """Class numbers (n_latents, k) of patches, or of pictures where those have the labels; -1 where there is none."""
    place = 0 if labels.classes.shape[1] == 1 else token
    return np.where(picture >= 0, labels.classes[picture if order is None else order[picture], place], -1)


def _agreeing(found: NDArray, label: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of the labels found (n_latents, k) are the latent's own, and how many there are, (n_latents,) each."""
    return ((found == label[:, None]) & (found >= 0)).sum(axis=1), np.where(label >= 0, (found >= 0).sum(axis=1), 0)


def _by_chance(
    purity: NDArray[np.float64],
    measured: Labels,
    picture: NDArray,
    token: NDArray,
    label: NDArray,
    orders: NDArray[np.int32],
    ties: np.random.Generator | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p-value and mean of purity when labels are moved between pictures, (n_latents,) each; NaN where purity is."""
    larger, equal, defined, total = np.zeros((4, len(purity)))
    for order in orders:
        # Where none of the pictures has a label now, there is nothing to compare.
        moved = _share(*_agreeing(labels_at(measured, picture, token, order), label))
        larger += moved > purity
        equal += moved == purity
        defined += ~np.isnan(moved)
        total += np.nan_to_num(moved)
    # The real labels count as one of the permutations.
    p = tail_share(larger, 1 + equal, 1 + defined, ties)
    return np.where(np.isnan(purity), np.nan, p), _share(total, defined)


def _covered(
    codes: pl.LazyFrame, latents: range, pictures: range, shown: NDArray[np.bool_], label: NDArray
) -> NDArray[np.int64]:
    """Pictures with the latent's label in which it is active, (n_latents,)."""
    met = (
        codes.filter(pl.col("image_id").is_between(pictures.start, pictures.stop, closed="left"))
        .filter(pl.col("value") > 0)
        .select("latent", "image_id")
        .unique()
        .collect()
    )
    latent = met["latent"].to_numpy() - latents.start
    hit = (label[latent] >= 0) & shown[label[latent], met["image_id"].to_numpy() - pictures.start]
    return np.bincount(latent[hit], minlength=len(latents))


def _share(hits: NDArray, trials: NDArray) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return hits / np.where(trials > 0, trials, np.nan)
