"""What the members of a sweep reach: error, and scores where there are any, against sparsity; which was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import COLUMN_WIDTH, PAGE_WIDTH, colours, save_figure, style
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
    "f1": pl.Float64,
    "f1_random": pl.Float64,
}
# Colours tell shares of dead latents up to at least this apart, in percent: a few of thousands are not many.
_LEAST_SHOWN = 5.0
_AXES = {"normalized_mse": "Normalized MSE", "f1": "Held-out F1, mean over classes"}


def data(selection: dict[str, Any], scores: Mapping[str, pl.DataFrame] | None = None) -> pl.DataFrame:
    """Return one row a member, by L0: its metrics, the settings in which it differs, and what became of it.

    A member is on the front if no other has both a smaller error and a smaller L0 (or one of them equal). f1 is the
    mean over classes of the held-out F1 of the class's best latent, f1_random the same of latents that are about as
    often active; null without scores.

    Parameters
    ----------
    selection
        What selection.json holds.
    scores
        scores.parquet by the name of the member.
    """
    rows, least = [], float("inf")
    for member in sorted(selection["members"], key=lambda m: (m["l0"], m["normalized_mse"], m["name"])):
        on_front = member["normalized_mse"] < least
        least = min(least, member["normalized_mse"])
        swept = ", ".join(f"{key}={value}" for key, value in member["settings"].items())
        known = {"sae": member["name"], "settings": swept, "on_front": on_front}
        best = (scores or {}).get(member["name"], pl.DataFrame(schema=_SCHEMA | {"rank": pl.Int16})).filter(rank=0)
        means = {name: best[name].mean() for name in ("f1", "f1_random")}
        rows.append({**member, **known, **means, "chosen": member["name"] == selection["chosen"]})
    return pl.DataFrame([{key: row[key] for key in _SCHEMA} for row in rows], schema=_SCHEMA)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a dot a member, paler with more dead latents, the front a line, a ring the chosen.

    A member outside the limits of the choice is a cross. Where there are scores, a second panel has them, with what
    chance reaches below.
    """
    shown = [name for name in _AXES if table[name].count()]
    with style(settings):
        width = min(PAGE_WIDTH, COLUMN_WIDTH * (0.25 + len(shown)))
        figure = Figure(figsize=(width, COLUMN_WIDTH), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(shown)))
        front = table.filter("on_front")
        panels[0].plot(front["l0"], front["normalized_mse"], color="#A0A0A0", zorder=1, label="Pareto front")
        for axes, name in zip(panels, shown, strict=True):
            dots = _draw_members(axes, table, name, settings)
            axes.set_xlabel("Active latents a patch (L0)")
            axes.set_ylabel(_AXES[name])
        if "f1" in shown:
            chance = {"marker": "_", "color": "#808080", "label": "latents about as often active"}
            panels[1].scatter(table["l0"], table["f1_random"], **chance)
        figure.colorbar(dots, label="Dead latents (%)")
        handles = {text: line for axes in panels for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside upper left")
    return figure


def draw_pareto(
    selection: Path,
    output: Path | Sequence[Path],
    settings: FigureSettings,
    scores: Mapping[str, Path] | None = None,
) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    selection
        selection.json of the sweep.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    scores
        Path of scores.parquet by the name of the member, if members were scored.
    """
    read = {name: pl.read_parquet(path) for name, path in (scores or {}).items()}
    table = data(read_json(selection), read)
    save_figure(draw(table, settings), table, output)


def _draw_members(axes: Axes, table: pl.DataFrame, name: str, settings: FigureSettings) -> PathCollection:
    """Draw one column against L0; returns dots that a colour bar can be made of."""
    # Up to a tenth above the largest share: the palest shade is hard to see on white.
    shades = {
        "cmap": "viridis",
        "vmin": 0,
        "vmax": 1.1 * max(_LEAST_SHOWN, 100 * max(table["dead_share"])),
        "zorder": 2,
    }
    within, refused = table.filter("within_limits"), table.filter(~pl.col("within_limits"))
    for part, marker in ((within, {"s": 22}), (refused, {"marker": "x", "label": "not within limits"})):
        if part.height:
            dots = axes.scatter(part["l0"], part[name], c=part["dead_share"] * 100, **marker, **shades)
    chosen = table.filter("chosen")
    axes.scatter(
        chosen["l0"],
        chosen[name],
        s=90,
        facecolors="none",
        edgecolors=colours(settings)[1],
        linewidths=1.4,
        zorder=3,
        label=f"chosen: {chosen['settings'].item() or chosen['sae'].item()}",
    )
    return dots
