"""The tables that the segmentation experiment publishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.features.resampling import benjamini_hochberg
from visae.heads.bootstrap import resampling_weights
from visae.interventions.arms import ARMS, AUTOMATIC, MATCHED, NATURAL
from visae.interventions.counts import (
    MEASURES,
    ClassCounts,
    Key,
    mean_shares,
    paired_p,
    pooled_shares,
    selectivity_difference,
    shares,
    sign_flips,
    with_intervals,
)

MEAN, POOLED = "mean", "pooled"
ALPHA = 0.05
"""False discovery rate at which a class is called significant."""

CHANCE = ("random_vector", "random_latent", "frequency_matched")
"""Arms that stand for chance: they know nothing of the class."""

_ARMS_SCHEMA: dict[str, Any] = {
    "arm": pl.String,
    "size": pl.String,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "scale": pl.Float64,
    "latents": pl.List(pl.Int32),
    **{f"{measure}{end}": pl.Float64 for measure in MEASURES for end in ("", "_low", "_high")},
    "p": pl.Float64,
    "q": pl.Float64,
    "n_target": pl.Int64,
    "n_other": pl.Int64,
    "n_images": pl.Int64,
}


def arms_table(
    classes: list[ClassCounts],
    latents: Mapping[tuple[str, int], tuple[int, ...]],
    n_images: int,
    resamples: int,
    seed: int,
) -> pl.DataFrame:
    """One row an arm, size, scale and class, and two for all classes: their mean, and their patches pooled.

    Parameters
    ----------
    latents
        What the arms of one draw edit, by arm and class id.
    n_images
        Pictures of the measured split.

    Returns
    -------
    DataFrame
        MEASURES with intervals from resampled pictures. `p` is that of the paired test that the automatic arm is
        more selective than the row's arm at the row's size; `q` the false discovery rate over classes.
    """
    weights, signs = resampling_weights(n_images, resamples, seed), sign_flips(n_images, resamples, seed)
    rows: list[dict[str, Any]] = []
    for key in _keys(classes):
        arm, size, scale = key
        own = [counts for counts in classes if key in counts.edits]
        found = [shares(counts, key) for counts in own]
        resampled = [shares(counts, key, weights) for counts in own]
        better = (AUTOMATIC, NATURAL, scale)
        added = [selectivity_difference(counts, better, key, n_images) for counts in own]
        is_control = arm != AUTOMATIC
        p = np.array([paired_p(difference, signs) if is_control else np.nan for difference in added])
        about = {"arm": arm, "size": size, "scale": scale}
        for counts, share, spread, one_p, q in zip(own, found, resampled, p, benjamini_hochberg(p), strict=True):
            target = counts.target
            who = {"class_name": target.class_name, "class_id": target.class_id}
            edited = {"latents": latents.get((arm, target.class_id)), "p": one_p, "q": q}
            rows.append(about | who | edited | with_intervals(share, spread) | _sizes([counts]))
        for name, share, spread in (
            (MEAN, mean_shares(found), mean_shares(resampled)),
            (POOLED, pooled_shares(own, key), pooled_shares(own, key, weights)),
        ):
            one_p = paired_p(np.mean(added, axis=0), signs) if is_control and name == MEAN else None
            rows.append(about | {"class_name": name, "p": one_p} | with_intervals(share, spread) | _sizes(own))
    return pl.DataFrame(rows, schema=_ARMS_SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def becomes_table(classes: list[ClassCounts], channel_names: list[str]) -> pl.DataFrame:
    """Share of each class's edited patches that end as each class, one row an arm, size, scale and pair of classes."""
    rows = []
    for arm, size, scale in _keys(classes):
        for counts in classes:
            if (arm, size, scale) in counts.edits:
                turned = counts.edits[(arm, size, scale)].becomes / counts.n_target.sum()
                who = (arm, size, counts.target.class_name, counts.target.class_id, scale)
                rows += [(*who, channel_names[k], float(turned[k])) for k in np.flatnonzero(turned)]
    schema = {name: _ARMS_SCHEMA[name] for name in ("arm", "size", "class_name", "class_id", "scale")}
    return pl.DataFrame(rows, schema=schema | {"class_name_after": pl.String, "share": pl.Float64}, orient="row")


def untrained_table(ranked: Mapping[int, NDArray[np.float64]], classes: Mapping[int, str]) -> pl.DataFrame:
    """One row a class and dictionary, 0 the tested one: the selectivity of its latents; null where it found none."""
    rows = [
        (classes[class_id], class_id, number, float(value) if np.isfinite(value) else None)
        for class_id, values in ranked.items()
        for number, value in enumerate(values)
    ]
    schema = {"class_name": pl.String, "class_id": pl.Int32, "dictionary": pl.Int32, "selectivity": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def significance(
    table: pl.DataFrame, rank_tests: Mapping[int, dict[str, float]], scale: float
) -> dict[int, dict[str, Any]]:
    """Say of each ranked class whether its latents are more selective than chance, by class id.

    They are where, at false discovery rates of at most ALPHA, they do more than the latents of untrained dictionaries
    and more than each arm of CHANCE that was run, as long on each patch.

    Parameters
    ----------
    table
        What `arms_table` gives.
    scale
        Of the paired tests.
    """
    controls = table.filter(pl.col("arm").is_in(CHANCE), pl.col("class_id").is_not_null(), size=MATCHED, scale=scale)
    worst = dict(controls.group_by("class_id").agg(pl.col("q").max()).iter_rows())
    return {
        class_id: {**test, "significant": max(test["q_untrained"], worst.get(class_id, 0)) <= ALPHA}
        for class_id, test in rank_tests.items()
    }


def over_classes(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of all classes together, for the summary."""
    return table.filter(pl.col("class_id").is_null()).drop("class_id", "latents", "q").to_dicts()


def _keys(classes: list[ClassCounts]) -> list[Key]:
    """All edits, in the order of ARMS."""
    keys = dict.fromkeys(key for counts in classes for key in counts.edits)
    return sorted(keys, key=lambda key: ARMS.index(key[0]))


def _sizes(classes: list[ClassCounts]) -> dict[str, int]:
    images = np.concatenate([counts.images[counts.n_target > 0] for counts in classes])
    return {
        "n_target": int(sum(counts.n_target.sum() for counts in classes)),
        "n_other": int(sum(counts.n_other.sum() for counts in classes)),
        "n_images": len(np.unique(images)),
    }
