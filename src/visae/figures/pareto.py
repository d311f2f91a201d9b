"""What the members of a sweep reach: error against sparsity, and which of them was taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import COLUMN_WIDTH, colours, save_figure, style
from visae.files import read_json

_SCHEMA = {
    "sae": pl.String,
    "settings": pl.String,
    "l0": pl.Float64,
    "normalized_mse": pl.Float64,
    "dead_share": pl.Float64,
    "within_limits": pl.Boolean,
    "on_front": pl.Boolean,
    "chosen": pl.Boolean,
}


def data(selection: dict[str, Any]) -> pl.DataFrame:
    """Return one row a member, by L0: its metrics, the settings in which it differs, and what became of it.

    A member is on the front if no other has both a smaller error and a smaller L0 (or one of them equal).

    Parameters
    ----------
    selection
        What selection.json holds.
    """
    rows, least = [], float("inf")
    for member in sorted(selection["members"], key=lambda m: (m["l0"], m["normalized_mse"], m["name"])):
        on_front = member["normalized_mse"] < least
        least = min(least, member["normalized_mse"])
        swept = ", ".join(f"{key}={value}" for key, value in member["settings"].items())
        known = {"sae": member["name"], "settings": swept, "on_front": on_front}
        rows.append({**member, **known, "chosen": member["name"] == selection["chosen"]})
    return pl.DataFrame([{key: row[key] for key in _SCHEMA} for row in rows], schema=_SCHEMA)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a dot a member, darker with more dead latents, the front a line, a ring the chosen.

    A member outside the limits of the choice is a cross.
    """
    with style(settings):
        figure = Figure(figsize=(COLUMN_WIDTH * 1.25, COLUMN_WIDTH), layout="constrained")
        axes = figure.subplots()
        front = table.filter("on_front")
        axes.plot(front["l0"], front["normalized_mse"], color="#A0A0A0", zorder=1, label="front")
        shades = {"cmap": "viridis_r", "vmin": 0, "vmax": max(1e-9, 100 * max(table["dead_share"])), "zorder": 2}
        within, refused = table.filter("within_limits"), table.filter(~pl.col("within_limits"))
        for part, marker in ((within, {"s": 22}), (refused, {"marker": "x", "label": "not within limits"})):
            if part.height:
                dots = axes.scatter(part["l0"], part["normalized_mse"], c=part["dead_share"] * 100, **marker, **shades)
        chosen = table.filter("chosen")
        axes.scatter(
            chosen["l0"],
            chosen["normalized_mse"],
            s=90,
            facecolors="none",
            edgecolors=colours(settings)[1],
            linewidths=1.4,
            zorder=3,
            label=f"chosen: {chosen['settings'].item() or chosen['sae'].item()}",
        )
        axes.set_xlabel("Active latents a patch (L0)")
        axes.set_ylabel("Normalized MSE")
        figure.colorbar(dots, label="Dead latents (%)")
        figure.legend(loc="outside upper left")
    return figure


def draw_pareto(selection: Path, output: Path | Sequence[Path], settings: FigureSettings) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    selection
        selection.json of the sweep.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(read_json(selection))
    save_figure(draw(table, settings), table, output)
