"""Scores of chosen latents against their nulls: how many reach what, and how many do so by chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import COLUMN_WIDTH, colours, save_figure, style

METRICS = {"f1": ("f1_random", "F1 on held-out patches")}
"""Columns of scores.parquet to draw, each with the column of its null and the name of its axis."""


def data(scores: pl.DataFrame) -> pl.DataFrame:
    """Return one row a score: metric, class_name, rank, latent, score, null; rows without either are left out."""
    known = [name for name, (null, _) in METRICS.items() if {name, null} <= set(scores.columns)]
    schema = {"metric": pl.String, "class_name": pl.String, "rank": pl.Int16, "latent": pl.Int32}
    empty = pl.DataFrame(schema=schema | {"score": pl.Float64, "null": pl.Float64})
    return pl.concat(
        [
            empty,
            *(
                scores.select(
                    pl.lit(name).alias("metric"),
                    *("class_name", "rank", "latent"),
                    pl.col(name).alias("score"),
                    pl.col(METRICS[name][0]).alias("null"),
                ).drop_nulls(["score", "null"])
                for name in known
            ),
        ]
    )


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: for each metric the share of scores, and of nulls, that are at least so high."""
    metrics = table["metric"].unique(maintain_order=True).to_list() or list(METRICS)[:1]
    with style(settings):
        figure = Figure(figsize=(COLUMN_WIDTH * len(metrics), COLUMN_WIDTH * 0.85), layout="constrained")
        for axes, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
            rows = table.filter(pl.col("metric") == metric)
            lines = (("chosen latents", "score", "-"), ("latents about as often active", "null", "--"))
            for colour, (label, column, line) in zip(colours(settings), lines, strict=False):
                values = np.sort(rows[column].to_numpy())
                share = 1 - np.arange(len(values) + 1) / max(1, len(values))
                axes.stairs(
                    share, np.concatenate([[0], values, [1]]), baseline=None, color=colour, linestyle=line, label=label
                )
            above = (rows["score"] > rows["null"]).sum()
            axes.set_title(f"{above} of {rows.height} above their own null", loc="left")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.02)
            axes.set_xlabel(METRICS[metric][1])
            axes.set_ylabel("share that is at least so high")
            axes.legend(loc="upper right")
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
