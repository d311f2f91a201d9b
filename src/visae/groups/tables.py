"""The tables that are published of groups: accuracies by way and group, and latents by what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from visae.experiments.tables import measured_columns
from visae.groups.estimate import Estimates

ACCURACIES: dict[str, Any] = {
    "way": pl.String,
    "size": pl.String,
    "n_latents": pl.Int32,
    "is_chosen": pl.Boolean,
    "over": pl.String,
    "group": pl.String,
    "n_images": pl.Int64,
    **measured_columns(("accuracy", "change")),
}
"""Columns of groups.parquet."""

LATENTS: dict[str, Any] = {
    "latent": pl.Int32,
    "rank": pl.Int32,
    "score": pl.Float64,
    "estimate_train": pl.Float64,
    "estimate_weak": pl.Float64,
    "estimate_strong": pl.Float64,
    **measured_columns(("effect_weak", "effect_strong")),
    "random_latent": pl.Float64,
    "frequency_matched": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "verified": pl.Boolean,
    "n_active": pl.Int64,
    "auc_background": pl.Float64,
    "background": pl.String,
    "auc_texture": pl.Float64,
    "texture": pl.String,
    "follows": pl.String,
}
"""Columns of spurious.parquet."""


def accuracy_table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """One row a way and group, and those over groups."""
    return pl.DataFrame(list(rows), schema=ACCURACIES).with_columns(pl.col(pl.Float64).fill_nan(None))


def latent_table(
    effects: Estimates,
    active: Sequence[int],
    ranked: Sequence[int],
    single: Mapping[int, Mapping[str, Any]],
    causes: pl.DataFrame | None,
) -> pl.DataFrame:
    """One row an active latent: those that help on train and harm in weak groups first, in the order of the ranking.

    Parameters
    ----------
    single
        What was measured of single latents.
    causes
        What they follow, where it is known.
    """
    ranks, scores = {latent: rank for rank, latent in enumerate(ranked)}, effects.scores
    rows = [
        {
            "latent": latent,
            "rank": ranks.get(latent),
            "score": float(scores[latent]),
            **{f"estimate_{name}": float(getattr(effects, name)[latent]) for name in ("train", "weak", "strong")},
            **single.get(latent, {}),
        }
        for latent in active
    ]
    own = {name: kind for name, kind in LATENTS.items() if name not in _KNOWN}
    table = pl.DataFrame(rows, schema=own)
    if causes is None:
        known = table.with_columns(pl.lit(None, dtype=LATENTS[name]).alias(name) for name in _KNOWN)
    else:
        known = table.join(causes.with_columns(pl.col("latent").cast(pl.Int32)), on="latent", how="left")
    return (
        known.select(pl.col(name).cast(kind) for name, kind in LATENTS.items())
        .with_columns(pl.col(pl.Float64).fill_nan(None))
        .sort("rank", pl.col("score"), "latent", descending=[False, True, False], nulls_last=True)
    )


_KNOWN = ("auc_background", "background", "auc_texture", "texture", "follows")
