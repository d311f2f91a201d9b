"""Scores of chosen latents against their nulls: how many reach what, and how many do so by chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import COLUMN_WIDTH, PAGE_WIDTH, colours, save_figure, style

METRICS = {"f1": "F1", "average_precision": "average precision", "auc": "ROC AUC"}
"""Columns of scores.parquet to draw, where there are such, with the names of their axes."""

NULLS = {"_random": "latents about as often active", "_null_best": "best of all latents, shuffled labels (95 %)"}
"""What a metric's nulls end in, the strictest last, and what they stand for."""

CHOSEN = "chosen latents"


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
    """Draw the table of `data`: for each metric the share of scores, and of nulls, that are at least so high."""
    metrics = table["metric"].unique(maintain_order=True).to_list() or list(METRICS)[:1]
    # Not all metrics have all nulls: a kind keeps its colour whatever else its panel shows.
    colour = dict(zip((CHOSEN, *NULLS.values()), colours(settings), strict=False))
    with style(settings):
        width = min(PAGE_WIDTH, COLUMN_WIDTH * len(metrics))
        figure = Figure(figsize=(width, COLUMN_WIDTH * 0.9), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
        for axes, metric in zip(panels, metrics, strict=True):
            rows = table.filter(pl.col("metric") == metric)
            nulls = rows.partition_by("null", maintain_order=True)
            kinds = [(CHOSEN, nulls[0]["score"])] if nulls else []
            kinds += [(null["null"][0], null["null_value"]) for null in nulls]
            for kind, values in kinds:
                share = 1 - np.arange(len(values) + 1) / len(values)
                edges = np.concatenate([[0], np.sort(values.to_numpy()), [1]])
                line = "-" if kind == CHOSEN else "--"
                axes.stairs(share, edges, baseline=None, color=colour[kind], linestyle=line, label=kind)
            if nulls:
                above = (nulls[-1]["score"] > nulls[-1]["null_value"]).sum()
                axes.set_title(f"{above} of {nulls[-1].height} above their own null", loc="left")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.02)
            axes.set_xlabel(f"{METRICS[metric]} on held-out patches")
        panels[0].set_ylabel("share that is at least so high")
        lines = {line.get_label(): line for axes in panels for line in axes.patches}
        figure.legend(handles=[lines[kind] for kind in colour if kind in lines], loc="outside upper left")
    return figure


def draw_score_nulls(scores: Path, output: Path | Sequence[Path], settings: FigureSettings) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    scores
        scores.parquet.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(pl.read_parquet(scores))
    save_figure(draw(table, settings), table, output)
