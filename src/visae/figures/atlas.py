"""The atlas of a task: estimated beside measured effects, what each ranking gets right, and what was proven."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, save_figure, style
from visae.files import read_json

RANKING_LABELS = {"estimate": "by estimate", "labels": "by labels", "random": "at random"}
"""Rankings of pairs, in words."""

# Where a legend hides no bar.
_BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2, "columnspacing": 1.0}

MOST_CLASSES = 12
"""Classes whose proven latents are counted: those with the most."""


def data(effects: pl.DataFrame) -> pl.DataFrame:
    """Return one row a pair that was edited."""
    columns = ["class_name", "latent", "estimate", "effect", "effect_low", "effect_high", "control", "q", "verified"]
    return effects.filter(pl.col("effect").is_not_null()).select(
        *columns, pl.col("replicates").fill_null(False), *(f"rank_{name}" for name in RANKING_LABELS)
    )


def draw(table: pl.DataFrame, precision: Sequence[dict[str, Any]], settings: FigureSettings) -> Figure:
    """Draw the table of `data`.

    Parameters
    ----------
    precision
        As atlas.json has it.
    """
    line = settings.font_size / 72
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, 2.2 + 5 * line), layout="constrained")
        agreement, right, proven = figure.subplots(1, 3, width_ratios=(1.1, 1, 1.1))
        _agreement(agreement, table, settings)
        _precision(right, precision, settings)
        _proven(proven, table, settings)
    return figure


def _agreement(axes: Axes, table: pl.DataFrame, settings: FigureSettings) -> None:
    """Estimated and measured effects."""
    colour = colours(settings)[0]
    limit = max(table.select(pl.max_horizontal(pl.col("estimate", "effect").abs().max())).item() or 1.0, 1e-12)
    axes.axline((0, 0), slope=1, color="#B3B3B3", linewidth=0.6)
    for verified, face in ((False, "none"), (True, colour)):
        part = table.filter(pl.col("verified").fill_null(False) == verified)
        label = "verified" if verified else "not verified"
        axes.scatter(
            part["estimate"], part["effect"], s=10, facecolors=face, edgecolors=colour, linewidths=0.6, label=label
        )
    axes.set(xlim=(-1.1 * limit, 1.1 * limit), ylim=(-1.1 * limit, 1.1 * limit))
    axes.set_xlabel("Estimated change of log odds")
    axes.set_ylabel("Measured change")
    axes.set_title("Latent switched off", loc="left")
    axes.legend(loc="upper left", handletextpad=0.1, borderaxespad=0.1)


def _precision(axes: Axes, precision: Sequence[dict[str, Any]], settings: FigureSettings) -> None:
    """Shares of verified pairs."""
    shades = (colours(settings)[0], "#B3B3B3")
    sizes = sorted({row["at"] for row in precision})
    names = [name for name in RANKING_LABELS if any(row["ranking"] == name for row in precision)]
    for number, size in enumerate(sizes):
        rows = {row["ranking"]: row for row in precision if row["at"] == size}
        places = np.arange(len(names)) + (number - (len(sizes) - 1) / 2) * 0.38
        values, low, high = (np.array([rows[name][key] for name in names]) for key in ("precision", "low", "high"))
        shown = max(row["n"] for row in rows.values())
        errors = np.maximum([values - low, high - values], 0)
        axes.bar(places, values, width=0.36, color=shades[number % len(shades)], label=f"first {shown}")
        axes.errorbar(places, values, yerr=errors, color="black", linestyle="", elinewidth=0.8)
    axes.set_xticks(range(len(names)), [RANKING_LABELS[name].replace(" ", "\n") for name in names])
    axes.set_ylim(0, 1)
    axes.set_ylabel("Verified")
    axes.set_title("Precision of rankings", loc="left")
    axes.legend(**_BELOW)


def _proven(axes: Axes, table: pl.DataFrame, settings: FigureSettings) -> None:
    """Latents that support classes, to the left, and that oppose them."""
    palette = colours(settings)
    counted = (
        table.filter("replicates")
        .group_by("class_name")
        .agg(supports=(pl.col("effect") < 0).sum(), opposes=(pl.col("effect") > 0).sum())
        .sort(pl.col("supports") + pl.col("opposes"), "class_name", descending=[True, False])
        .head(MOST_CLASSES)
    )
    places = np.arange(len(counted))
    axes.barh(places, -counted["supports"].cast(pl.Int64).to_numpy(), color=palette[0], height=0.7, label="support")
    axes.barh(places, counted["opposes"].to_numpy(), color=palette[1], height=0.7, label="oppose")
    axes.set_yticks(places, counted["class_name"].to_list())
    axes.set_ylim(max(len(places), 1) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlabel("Latents")
    axes.set_title("Proven, and shown again", loc="left")
    if len(counted):
        axes.legend(**_BELOW)
    else:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")


def draw_atlas(effects: Path, summary: Path, output: Path | Sequence[Path], settings: FigureSettings) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    effects, summary
        effects.parquet and atlas.json.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(pl.read_parquet(effects))
    save_figure(draw(table, read_json(summary)["precision"], settings), table, output)
