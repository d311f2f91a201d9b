"""Which latents are shown where few can be: the best of each class, then the strongest that are not rare or dense."""

from __future__ import annotations

import polars as pl

from visae.config.settings import FigureSettings


def chosen_latents(
    exemplars: pl.DataFrame, stats: pl.DataFrame, scores: pl.DataFrame | None, settings: FigureSettings
) -> list[int]:
    """Return the best latent of each class by held-out F1, then the strongest of those within the settings' ranges.

    A latent that is best for two classes is shown once. Latents without exemplars are left out.
    """
    shown = set(exemplars["latent"].unique())
    of_classes: list[int] = [] if scores is None else _best(scores)["latent"].to_list()
    strongest = (
        exemplars.filter(pl.col("kind") == "top")
        .group_by("latent")
        .agg(pl.col("value").cast(pl.Float64).mean().alias("strength"))
        .join(
            stats.select("latent", "log10_frequency", pl.col("mean").cast(pl.Float64).log10().alias("log10_mean")),
            on="latent",
        )
        .sort("strength", "latent", descending=[True, False])
    )
    moderate = strongest
    for column in ("log10_frequency", "log10_mean"):
        limits = getattr(settings, column)
        if limits:
            moderate = moderate.filter(pl.col(column).is_between(*limits))
    order = dict.fromkeys(of_classes + moderate["latent"].to_list())
    # Of a poor SAE there may be only dense ones: they are shown rather than nothing.
    return [latent for latent in order or strongest["latent"] if latent in shown][: settings.latents]


def _best(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the row of each class's best latent that could be measured, the best F1 first."""
    measured = scores.filter((pl.col("rank") == 0) & pl.col("latent").is_not_null() & pl.col("f1").is_not_null())
    return measured.sort("f1", "class_id", descending=[True, False])
