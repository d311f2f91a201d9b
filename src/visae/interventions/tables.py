"""From what classification edits measure to the table that they publish."""

from __future__ import annotations

import numpy as np
import polars as pl

from visae.config.settings import InterventionSettings
from visae.heads.bootstrap import class_mean, interval, ratios, resampling_weights
from visae.interventions.targets import Target

MEAN = "mean"
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
    "size": pl.String,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "scale": pl.Float64,
    "latent": pl.Int32,
    **{f"{measure}{end}": pl.Float64 for measure in MEASURES for end in ("", "_low", "_high")},
    "n_images": pl.Int64,
}
# Edit (suppress or insert), arm, size, scale, and whose latent.
EditKey = tuple[str, str, str, float, Target]


def edits_table(results: dict[EditKey, np.ndarray], settings: InterventionSettings, seed: int) -> pl.DataFrame:
    """One row an edit, arm, size, class and scale, and one with the mean over classes.

    Each class is resampled by itself.

    Parameters
    ----------
    results
        Measures (n_images, len(MEASURES)).
    """
    rows = []
    for edit, arm, size, scale in dict.fromkeys(key[:4] for key in results):
        about = {"edit": edit, "arm": arm, "size": size, "scale": scale}
        of_class = {key[4]: measures for key, measures in results.items() if key[:4] == (edit, arm, size, scale)}
        found, resampled = [], []
        for target, measures in of_class.items():
            weights = resampling_weights(len(measures), settings.bootstrap, seed + target.class_id)
            found.append(ratios(measures, np.ones_like(measures)))
            resampled.append(ratios(measures, np.ones_like(measures), weights))
            latent = target.latents[0] if arm == "automatic" else None
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
