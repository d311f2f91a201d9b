"""From counts to the tables that experiments publish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from visae.config.settings import InterventionSettings
from visae.heads.bootstrap import class_mean, interval, ratios, resampling_weights
from visae.interventions.arms import ARMS
from visae.interventions.targets import Target

MEAN = "mean"
SHARES = ("target_change", "other_change", "selectivity")
_ARMS_SCHEMA = {
    "arm": pl.String,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "scale": pl.Float64,
    "latent": pl.Int32,
    **{f"{share}{end}": pl.Float64 for share in SHARES for end in ("", "_low", "_high")},
    "n_target": pl.Int64,
    "n_other": pl.Int64,
    "n_images": pl.Int64,
}


# What classification edits measure on each picture.
MEASURES = (
    "probability_before",
    "probability_after",
    "probability_change",
    "predicted_before",
    "predicted_after",
    "accuracy_before",
    "accuracy_after",
    "flip_share",
    "other_change",
)
_EDITS_SCHEMA = {
    "edit": pl.String,
    "arm": pl.String,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "scale": pl.Float64,
    "latent": pl.Int32,
    **{f"{measure}{end}": pl.Float64 for measure in MEASURES for end in ("", "_low", "_high")},
    "n_images": pl.Int64,
}
# Edit (suppress or insert), arm, scale, and whose latent.
EditKey = tuple[str, str, float, Target]


@dataclass
class SegmentationCounts:
    """Patches counted per picture; means over draws where an arm has several.

    Attributes
    ----------
    target, other
        (n_arms, n_scales, n_targets, n_images) patches whose prediction changed, edited ones and others.
    n_target, n_other
        (n_targets, n_images) patches there were.
    becomes
        (n_arms, n_scales, n_targets, n_channels) what edited patches are predicted as afterwards.
    skipped
        (n_targets,) pictures that have the class, but no patch predicted as it.
    """

    target: np.ndarray
    other: np.ndarray
    n_target: np.ndarray
    n_other: np.ndarray
    becomes: np.ndarray
    skipped: np.ndarray

    @classmethod
    def zeros(cls, n_scales: int, n_targets: int, n_images: int, n_channels: int) -> SegmentationCounts:
        """Nothing counted yet."""
        by_image = (len(ARMS), n_scales, n_targets, n_images)
        return cls(
            np.zeros(by_image),
            np.zeros(by_image),
            np.zeros((n_targets, n_images), dtype=np.int64),
            np.zeros((n_targets, n_images), dtype=np.int64),
            np.zeros((len(ARMS), n_scales, n_targets, n_channels)),
            np.zeros(n_targets, dtype=np.int64),
        )


def arms_table(
    counts: SegmentationCounts, targets: list[Target], scales: list[float], resamples: int, seed: int
) -> pl.DataFrame:
    """One row an arm, class and scale, and one with the mean over classes (class_name "mean")."""
    weights = resampling_weights(counts.n_target.shape[1], resamples, seed)
    n_target, n_other = counts.n_target.sum(axis=1), counts.n_other.sum(axis=1)
    n_images = (counts.n_target > 0).sum(axis=1)
    measurable = np.flatnonzero(n_target > 0)
    rows: list[dict[str, Any]] = []
    for a, arm in enumerate(ARMS):
        for s, scale in enumerate(scales):
            found, resampled = (_shares(counts, a, s, w) for w in (None, weights))
            for c in measurable:
                target = targets[c]
                rows.append(
                    {
                        "arm": arm,
                        "class_name": target.class_name,
                        "class_id": target.class_id,
                        "scale": scale,
                        "latent": target.latent if arm == "automatic" else None,
                        **_with_intervals(
                            {k: v[c] for k, v in found.items()}, {k: v[:, c] for k, v in resampled.items()}
                        ),
                        "n_target": n_target[c],
                        "n_other": n_other[c],
                        "n_images": n_images[c],
                    }
                )
            if len(measurable):
                means = [{k: class_mean(v) for k, v in shares.items()} for shares in (found, resampled)]
                rows.append(
                    {
                        "arm": arm,
                        "class_name": MEAN,
                        "scale": scale,
                        **_with_intervals(*means),
                        "n_target": n_target.sum(),
                        "n_other": n_other.sum(),
                        "n_images": (counts.n_target > 0).any(axis=0).sum(),
                    }
                )
    return pl.DataFrame(rows, schema=_ARMS_SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def becomes_table(
    counts: SegmentationCounts, targets: list[Target], scales: list[float], channel_names: list[str]
) -> pl.DataFrame:
    """Share of each class's edited patches that end as each class: arm, class_name, scale, class_name_after, share."""
    rows = []
    n_target = counts.n_target.sum(axis=1)
    for a, arm in enumerate(ARMS):
        for s, scale in enumerate(scales):
            for c in np.flatnonzero(n_target > 0):
                shares = counts.becomes[a, s, c] / n_target[c]
                rows += [
                    (arm, targets[c].class_name, targets[c].class_id, scale, channel_names[k], float(shares[k]))
                    for k in np.flatnonzero(shares)
                ]
    schema = {"arm": pl.String, "class_name": pl.String, "class_id": pl.Int32, "scale": pl.Float64}
    return pl.DataFrame(rows, schema=schema | {"class_name_after": pl.String, "share": pl.Float64}, orient="row")


def mean_rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Class means of every arm and scale, for the summary."""
    return (
        table.filter(pl.col("class_name") == MEAN, pl.col("class_id").is_null()).drop("class_id", "latent").to_dicts()
    )


def _shares(counts: SegmentationCounts, arm: int, scale: int, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    """Shares of every class (n_targets,), or of every resample and class."""
    target = ratios(counts.target[arm, scale].T, counts.n_target.T, weights)
    # Where a class fills its pictures there are no other patches, and nothing else can change.
    other = np.where(
        np.isnan(target), np.nan, np.nan_to_num(ratios(counts.other[arm, scale].T, counts.n_other.T, weights))
    )
    return {"target_change": target, "other_change": other, "selectivity": target - other}


def _with_intervals(found: dict[str, Any], resampled: dict[str, np.ndarray]) -> dict[str, float]:
    """Each share with its `_low` and `_high`."""
    row: dict[str, float] = {}
    for share in SHARES:
        low, high = interval(resampled[share])
        row |= {share: float(found[share]), f"{share}_low": low, f"{share}_high": high}
    return row


def edits_table(results: dict[EditKey, np.ndarray], settings: InterventionSettings, seed: int) -> pl.DataFrame:
    """One row an edit, arm, class and scale, and one with the mean over classes; each class is resampled by itself.

    Parameters
    ----------
    results
        Measures (n_images, len(MEASURES)).
    """
    rows: list[dict[str, Any]] = []
    for edit, arm, scale in dict.fromkeys(key[:3] for key in results):
        about = {"edit": edit, "arm": arm, "scale": scale}
        of_class = {key[3]: measures for key, measures in results.items() if key[:3] == (edit, arm, scale)}
        found, resampled = [], []
        for target, measures in of_class.items():
            weights = resampling_weights(len(measures), settings.bootstrap, seed + target.class_id)
            found.append(ratios(measures, np.ones_like(measures)))
            resampled.append(ratios(measures, np.ones_like(measures), weights))
            latent = target.latent if arm == "automatic" else None
            who = {"class_name": target.class_name, "class_id": target.class_id, "latent": latent}
            rows.append(about | who | _measures(found[-1], resampled[-1]) | {"n_images": len(measures)})
        mean = _measures(class_mean(np.stack(found, -1)), class_mean(np.stack(resampled, -1)))
        rows.append(about | {"class_name": MEAN} | mean | {"n_images": sum(len(m) for m in of_class.values())})
    return pl.DataFrame(rows, schema=_EDITS_SCHEMA)


def _measures(found: np.ndarray, resampled: np.ndarray) -> dict[str, float]:
    """Measures (len(MEASURES),) with intervals from their resamples (resamples, len(MEASURES))."""
    row: dict[str, float] = {}
    for column, measure in enumerate(MEASURES):
        low, high = interval(resampled[:, column])
        row |= {measure: float(found[column]), f"{measure}_low": low, f"{measure}_high": high}
    return row
