"""How well single latents tell the known causes of made scenes: chosen on one split, measured on another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import FeatureSettings
from visae.data.index import read_classes, read_index
from visae.data.split_names import Splits
from visae.errors import DataError
from visae.features.auc import latent_aucs, weighted_auc
from visae.features.blocks import read_matching_manifest
from visae.features.codes import scan_codes
from visae.features.resampling import picture_weights
from visae.features.scores import pictures_of
from visae.files import write_table
from visae.intervals import RESAMPLES, interval

CAUSES = ("texture", "shape", "tint", "place")
MEAN = "mean"
"""Stands in `value` where a row is the mean over all values of a cause."""

SCHEMA = {
    "cause": pl.String,
    "value": pl.String,
    "latent": pl.Int32,
    "auc_fit": pl.Float64,
    "auc": pl.Float64,
    "auc_low": pl.Float64,
    "auc_high": pl.Float64,
    "n_patches": pl.Int64,
    "l0": pl.Float64,
    "width": pl.Int64,
}


def write_cause_scores(
    codes_manifest: Path,
    patch_labels: Path,
    index_path: Path,
    output: Path,
    settings: FeatureSettings,
    *,
    splits: Splits = Splits(),  # noqa: B008  frozen
    seed: int = 0,
) -> None:
    """Write causes.parquet: for each value of each cause the latent that tells it best, with its held-out AUC.

    Only patches that lie on objects count (at least `settings.min_purity` of their pixels on one): a latent
    has to tell brick from the other textures, not objects from the background. The latent of each value is the one
    with the largest area under the ROC curve on `fit_split`; `auc` is that on `measure_split`, with the 95 % interval
    over resampled pictures. A row with the value `mean` is the mean over a cause's values, whose interval comes from
    the same resamples. `l0` and `width` are those of the dictionary.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    patch_labels
        Parquet of image_id, token, label, purity.
    index_path
        Index of the data set, of kind `scenes`.
    output
        Parquet file to write: `SCHEMA`.
    settings
        Section `features`.
    splits
        Split to choose on, and to measure on.
    seed
        Seed of the resampling.
    """
    manifest = read_matching_manifest(codes_manifest, index_path)
    patches = caused_patches(patch_labels, index_path, settings.min_purity)
    fit, measured = (
        _of_split(codes_manifest, patches, pictures_of(manifest, split, codes_manifest)) for split in splits
    )
    pictures, picture = np.unique(measured[0]["image_id"].to_numpy(), return_inverse=True)
    # One set of resamples for all, so that means keep their pairing; before them the pictures as they are.
    weights = np.concatenate([np.ones((1, len(pictures))), picture_weights(len(pictures), RESAMPLES, seed)])
    rows = []
    for cause in CAUSES:
        chosen = _best_latents(*fit, cause)
        aucs = np.array([_resampled(*measured, cause, row, picture, weights) for row in chosen]).reshape(
            len(chosen), -1
        )
        for row, found in zip(chosen, aucs, strict=True):
            rows.append({"cause": cause, **row, **_with_interval(found)})
        mean = {"auc_fit": float(np.mean([row["auc_fit"] for row in chosen])), **_with_interval(aucs.mean(axis=0))}
        rows.append({"cause": cause, "value": MEAN, "n_patches": measured[0].height, **mean})
    more = {
        "l0": scan_codes(codes_manifest).select(pl.len()).collect().item() / manifest["n_tokens"],
        "width": manifest["width"],
    }
    table = pl.DataFrame([row | more for row in rows], schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))
    write_table(output, table)


def caused_patches(patch_labels: Path, index_path: Path, min_purity: float) -> pl.DataFrame:
    """Patches on objects of made scenes, with the causes of the object that they lie on.

    Returns
    -------
    DataFrame
        image_id, token, and as text: texture, shape, tint, and place, the quarter of the picture in which the object's
        centre lies. Sorted by image_id and token.

    Raises
    ------
    DataError
        If the index is not of scenes.
    """
    causes_path = index_path.parent / "pictures" / "causes.parquet"
    if not causes_path.is_file():
        raise DataError(f"{causes_path} is missing: causes are known for data sets of kind scenes only; {index_path}")
    sizes = read_index(index_path).select("image_id", "width", "height")
    across = pl.when(pl.col("centre_x") < pl.col("width") / 2).then(pl.lit("left")).otherwise(pl.lit("right"))
    down = pl.when(pl.col("centre_y") < pl.col("height") / 2).then(pl.lit("upper")).otherwise(pl.lit("lower"))
    # No two objects of a picture have the same texture, so a patch's texture says which object it lies on.
    objects = (
        pl.read_parquet(causes_path)
        .join(sizes, on="image_id")
        .select("image_id", "texture", "shape", "tint", pl.concat_str(down, across, separator=" ").alias("place"))
    )
    textures = pl.DataFrame(
        [(number, name) for number, name in read_classes(index_path).items()],
        schema={"label": pl.Int16, "texture": pl.String},
        orient="row",
    )
    return (
        pl.read_parquet(patch_labels)
        .filter(pl.col("purity") >= min_purity)
        .join(textures, on="label")
        .join(objects, on=["image_id", "texture"])
        .select("image_id", "token", *CAUSES)
        .sort("image_id", "token")
    )


_Split = tuple[pl.DataFrame, pl.DataFrame]


def _of_split(codes_manifest: Path, patches: pl.DataFrame, pictures: range) -> _Split:
    """Patches of a split with their row numbers, and the codes on them: patch (row number), latent, value."""
    within = patches.filter(pl.col("image_id").is_between(pictures.start, pictures.stop, closed="left"))
    if within.is_empty():
        raise DataError(
            f"{codes_manifest}: no patch of pictures {pictures.start} to {pictures.stop - 1} lies on one object; "
            "lower features.min_purity"
        )
    within = within.with_row_index("patch")
    places = within.lazy().select("image_id", "token", "patch")
    codes = (
        scan_codes(codes_manifest, "patches").join(places, on=["image_id", "token"]).select("patch", "latent", "value")
    )
    return within, codes.collect()


def _best_latents(patches: pl.DataFrame, codes: pl.DataFrame, cause: str) -> list[dict]:
    """Value, latent and auc_fit: of each value of a cause the latent with the largest AUC, of equal ones the first."""
    active = codes.join(patches.select("patch", pl.col(cause).alias("class_id")), on="patch")
    sizes = patches.group_by(pl.col(cause).alias("class_id")).agg(pl.len().alias("positives"))
    best = (
        latent_aucs(active, sizes)
        .sort("class_id", "auc", "latent", descending=[False, True, False])
        .group_by("class_id", maintain_order=True)
        .first()
    )
    return best.select(pl.col("class_id").alias("value"), "latent", pl.col("auc").alias("auc_fit")).to_dicts()


def _resampled(
    patches: pl.DataFrame,
    codes: pl.DataFrame,
    cause: str,
    row: dict,
    picture: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """AUC of a chosen latent for its value in each resample; notes in `row` how many patches have the value."""
    active = codes.filter(pl.col("latent") == row["latent"])
    values = np.zeros(patches.height, dtype=np.float32)
    values[active["patch"].to_numpy()] = active["value"].to_numpy()
    positive = (patches[cause] == row["value"]).to_numpy()
    row["n_patches"] = int(positive.sum())
    return weighted_auc(values, positive, picture, weights)


def _with_interval(aucs: NDArray[np.float64]) -> dict[str, float]:
    """AUC without resampling, which comes first, and its interval."""
    low, high = interval(aucs[1:])
    return {"auc": float(aucs[0]), "auc_low": low, "auc_high": high}
