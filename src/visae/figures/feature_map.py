"""Map of all latents: how often each is active against how strongly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.features.names import best_classes, described, read_names
from visae.figures.style import PAGE_WIDTH, colours, save_figure, style
from visae.figures.units import ACTIVE_ON, kind_of

MOST_LABELS = 16
"""Latents named on the map: those with a name, then the best of the classes with the highest F1."""


def data(stats: pl.DataFrame, scores: pl.DataFrame | None, names: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return one row a latent: latent, name, frequency, mean, log10_frequency, log10_mean, class_name, f1.

    class_name and f1 are of the class whose best latent it is, and null for all others; of several classes,
    the one with the highest held-out F1. Logarithms of a dead latent are null.

    Parameters
    ----------
    stats, scores
        Tables of the features.
    names
        From `visae.features.names.read_names`.
    """
    best = best_classes(None if scores is None else scores.filter(pl.col("rank") == 0))
    kind = ["tokens"] if "tokens" in stats.columns else []
    return (
        described(stats, None, names)
        .select("latent", "name", "frequency", "mean", "log10_frequency", "log10_mean", *kind)
        .join(best.select("latent", "class_name", "f1"), on="latent", how="left", maintain_order="left")
    )


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a point a latent; those with a name, and the best of each class, named at the right."""
    alive = table.filter(pl.col("log10_frequency").is_not_null())
    has_name = pl.col("name").is_not_null()
    named = (
        alive.filter(has_name | pl.col("class_name").is_not_null())
        .sort(has_name, "f1", "latent", descending=[True, True, False], nulls_last=True)
        .head(MOST_LABELS)
        .sort("log10_mean", "latent", descending=[True, False])
    )
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH * 0.75, PAGE_WIDTH * 0.45), layout="constrained")
        axes = figure.add_subplot()
        # Thousands of points as paths make a PDF slow to open: they are drawn as pixels, text stays text.
        axes.scatter(
            alive["log10_frequency"], alive["log10_mean"], s=5, c="#9A9A9A", alpha=0.5, linewidths=0, rasterized=True
        )
        axes.scatter(
            named["log10_frequency"],
            named["log10_mean"],
            s=18,
            c=colours(settings)[1],
            edgecolors="white",
            linewidths=0.5,
        )
        # Names stand in a column, each near the height of its latent, so that they never lie on each other.
        low, high = axes.get_ylim()
        heights = (named["log10_mean"].cast(pl.Float64).to_numpy() - low) / (high - low)
        for place, (name, class_name, f1, x, y) in zip(
            _apart(heights),
            named.select("name", "class_name", "f1", "log10_frequency", "log10_mean").iter_rows(),
            strict=True,
        ):
            axes.annotate(
                _label(name, class_name, f1),
                (x, y),
                xytext=(1.03, place),
                textcoords="axes fraction",
                va="center",
                arrowprops={
                    "arrowstyle": "-",
                    "relpos": (0, 0.5),
                    "linewidth": 0.4,
                    "color": "#606060",
                    "shrinkA": 1,
                    "shrinkB": 3,
                },
            )
        axes.set_xlabel(f"log10 share of {ACTIVE_ON[kind_of(table)]} that the latent is active on")
        axes.set_ylabel("log10 mean active value")
        dead = table.height - alive.height
        axes.set_title(
            f"{table.height:,} latents, {dead:,} never active"
            + (", classes with held-out F1" if named["f1"].count() else ""),
            loc="left",
        )
    return figure


def draw_feature_map(
    stats: Path,
    output: Path | Sequence[Path],
    settings: FigureSettings,
    scores: Path | None = None,
    names: Path | None = None,
) -> None:
    """Write the map as PDF, PNG and CSV.

    Parameters
    ----------
    stats, scores
        Parquet files of the features; without scores, no latent is named after a class.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    names
        CSV file of names, if any.
    """
    table = data(
        pl.read_parquet(stats),
        None if scores is None else pl.read_parquet(scores),
        None if names is None else read_names(names),
    )
    save_figure(draw(table, settings), table, output)


def _apart(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move falling heights so far apart, from 0 to 1, that a line of text fits between any two."""
    gap, places = 0.94 / max(MOST_LABELS - 1, 1), heights.clip(0.03, 0.97)
    for place in range(1, len(places)):
        places[place] = min(places[place], places[place - 1] - gap)
    if len(places):
        places[-1] = max(places[-1], 0.03)
    for place in range(len(places) - 2, -1, -1):
        places[place] = max(places[place], places[place + 1] + gap)
    return places


def _label(name: str | None, class_name: str | None, f1: float | None) -> str:
    """Return a latent's name in quotes, the class that it is best for with its F1, or both."""
    parts = [f"“{name}”"] if name is not None else []
    if class_name is not None:
        parts.append(f"{class_name} {f1:.2f}")
    # Names are given by people: a dollar sign in one is not a formula.
    return ", ".join(parts).replace("$", r"\$")
