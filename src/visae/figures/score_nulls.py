"""Scores of chosen latents against their nulls: each latent beside what chance reaches for its class."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import COLUMN_WIDTH, PAGE_WIDTH, colours, style

METRICS = {"f1": "F1", "average_precision": "average precision", "auc": "ROC AUC"}
"""Columns of scores.parquet to draw, where there are such, with the names of their axes."""

NULLS = {
    "_null": "the same latent, labels shuffled (mean)",
    "_random": "latents about as often active (mean)",
    "_null_best": "strictest: the best of all latents, labels shuffled (95 %)",
}
"""What a metric's nulls end in, the strictest last, and what they stand for."""

_MARKERS = dict(zip(NULLS.values(), "osD", strict=True))


def data(scores: pl.DataFrame) -> pl.DataFrame:
    """Return one row a score and null: metric, class_name, rank, latent, score, null (its name), null_value.

    Only metrics with a null are there, and rows that have both.
    """
    schema = {"metric": pl.String, "class_name": pl.String, "rank": pl.Int16, "latent": pl.Int32}
    empty = pl.DataFrame(schema=schema | {"score": pl.Float64, "null": pl.String, "null_value": pl.Float64})
    found = [
        scores.select(
            pl.lit(metric).alias("metric"),
            *("class_name", "rank", "latent"),
            pl.col(metric).alias("score"),
            pl.lit(null).alias("null"),
            pl.col(f"{metric}{ending}").alias("null_value"),
        ).drop_nulls(["score", "null_value"])
        for metric in METRICS
        for ending, null in NULLS.items()
        if {metric, f"{metric}{ending}"} <= set(scores.columns)
    ]
    return pl.concat([empty, *found])


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: for each metric a dot a score and null; what lies above the diagonal beats the null."""
    metrics = table["metric"].unique(maintain_order=True).to_list() or list(METRICS)[:1]
    # Not all metrics have all nulls: a kind keeps its colour whatever else its panel shows.
    colour = dict(zip(NULLS.values(), colours(settings), strict=False))
    with style(settings):
        width = min(PAGE_WIDTH, COLUMN_WIDTH * len(metrics))
        figure = Figure(figsize=(width, width / len(metrics) + 0.9), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
        for axes, metric in zip(panels, metrics, strict=True):
            axes.plot([0, 1], [0, 1], color="#A0A0A0", linewidth=0.8, zorder=0)
            nulls = table.filter(pl.col("metric") == metric).partition_by("null", maintain_order=True)
            for null in nulls:
                kind = null["null"][0]
                dots = {"color": colour[kind], "marker": _MARKERS[kind], "s": 9, "linewidths": 0, "clip_on": False}
                axes.scatter(null["null_value"], null["score"], label=kind, **dots)
            if nulls:
                above = (nulls[-1]["score"] > nulls[-1]["null_value"]).sum()
                axes.set_title(f"{above} of {nulls[-1].height} beat the strictest null", loc="left")
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=f"{METRICS[metric]} by chance")
        panels[0].set_ylabel("score on held-out patches")
        shown = {dots.get_label(): dots for axes in panels for dots in axes.collections}
        figure.legend(handles=[shown[kind] for kind in colour if kind in shown], loc="outside upper left")
    return figure
