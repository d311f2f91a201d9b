"""What latents do together: a matrix of synergies of pairs, and groups that stand in for each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, plain, save_figure, style
from visae.files import read_json

MOST_GROUPS = 8
"""Groups that are drawn: redundant ones first, then those that do most beyond the sum."""

_COLOURS = {"okabe-ito": "RdBu_r", "grey": "Greys"}
_LINEAR = 0.05
"""Part of the largest synergy up to which shades are in proportion to it; beyond, to its logarithm."""


def data(interactions: pl.DataFrame) -> pl.DataFrame:
    """Return one row a field of the matrix: a latent, the class in which it is measured, and another latent.

    Latents are in the order of their classes; those without a tested pair have null in `synergy`.
    """
    columns = ["synergy", "synergy_low", "synergy_high", "q", "significant", "than_sum", "n_together"]
    kept = ["class_id", "class_name", "latent", "other_class_id", "other", *columns]
    rows = interactions.select(kept)
    # Of two latents of a class only the one that comes first has the row.
    mirrored = rows.filter(pl.col("class_id") == pl.col("other_class_id")).with_columns(
        latent=pl.col("other"), other=pl.col("latent")
    )
    return pl.concat([rows, mirrored]).sort("class_id", "latent", "other_class_id", "other")


def draw(table: pl.DataFrame, groups: Sequence[dict[str, Any]], settings: FigureSettings) -> Figure:
    """Draw the table of `data`.

    Parameters
    ----------
    groups
        As interactions.json has them.
    """
    shown = sorted(groups, key=lambda group: (not group["redundant"], -abs(group["beyond_sum"])))[:MOST_GROUPS]
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, 0.58 * PAGE_WIDTH), layout="constrained")
        matrix, bars = figure.subplots(1, 2, width_ratios=(1.7, 1))
        _matrix(figure, matrix, table, settings)
        _groups(bars, shown, settings)
    return figure


def _matrix(figure: Figure, axes: Axes, table: pl.DataFrame, settings: FigureSettings) -> None:
    """Synergies as shades, significant ones with a dot."""
    axes.set_title("Synergy of pairs, both switched off", loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    latents = table.select("class_id", "class_name", "latent").unique(maintain_order=True)
    if table["synergy"].count() == 0:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no pair that could be tested", transform=axes.transAxes, ha="center")
        return
    place = {latent: number for number, latent in enumerate(latents["latent"].to_list())}
    values = np.full((len(place), len(place)), np.nan)
    dots = []
    for row in table.iter_rows(named=True):
        if row["synergy"] is not None and row["other"] in place:
            where = place[row["latent"]], place[row["other"]]
            values[where] = row["synergy"]
            dots += [where] if row["significant"] else []
    limit = max(float(np.nanmax(np.abs(values))), 1e-9)
    axes.set_facecolor("#E6E6E6")
    norm = SymLogNorm(_LINEAR * limit, vmin=-limit, vmax=limit)
    image = axes.imshow(np.ma.masked_invalid(values), cmap=_COLOURS[settings.palette], norm=norm)
    if dots:
        axes.scatter([column for _, column in dots], [row for row, _ in dots], s=4, color="black", linewidths=0)
    names = latents["class_name"].to_list()
    starts = [number for number, name in enumerate(names) if number == 0 or name != names[number - 1]]
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=1.5)
        axes.axvline(start - 0.5, color="white", linewidth=1.5)
    ends = [*starts[1:], len(names)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    size = min(settings.font_size * 0.9, 72 * 3.2 / max(len(starts), 1) * 0.8)
    labels = [plain(names[start]) for start in starts]
    axes.set_yticks(middles, labels, size=size)
    axes.set_xticks(middles, labels, size=size, rotation=90)
    axes.set_ylabel("Latent, measured in its class")
    axes.set_xlabel("Latent switched off with it")
    ticks = [-limit, -limit / 10, 0, limit / 10, limit]
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=ticks, format=lambda value, _: f"{value:+.2g}")
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label("Change of log odds beyond the sum")


def _groups(axes: Axes, groups: Sequence[dict[str, Any]], settings: FigureSettings) -> None:
    """Sum of what each latent of a group does alone, what they do together, and what random groups do."""
    axes.set_title("Groups: alone and together", loc="left")
    if not groups:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
        return
    shades = {"sum_alone": "#B3B3B3", "together": colours(settings)[0]}
    words = {"sum_alone": "sum of each alone", "together": "together"}
    places = np.arange(len(groups))
    for number, (name, colour) in enumerate(shades.items()):
        values, low, high = (np.array([group[name + end] for group in groups]) for end in ("", "_low", "_high"))
        at = places + (number - 0.5) * 0.38
        axes.barh(at, values, height=0.36, color=colour, label=words[name])
        errors = np.maximum([values - low, high - values], 0)
        axes.errorbar(values, at, xerr=errors, color="black", linestyle="", elinewidth=0.8)
    axes.scatter(
        [group["random_groups"] for group in groups],
        places + 0.19,
        s=14,
        marker="|",
        color=colours(settings)[1],
        label="random groups, as long",
        zorder=3,
    )
    labels = [f"{plain(group['class_name'])}, {len(group['latents'])}{' *' * group['redundant']}" for group in groups]
    axes.set_yticks(places, labels)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel("Change of log odds")
    axes.legend(loc="upper center", bbox_to_anchor=(0.35, -0.16), ncols=1)


def draw_interactions(
    interactions: Path, summary: Path, output: Path | Sequence[Path], settings: FigureSettings
) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    interactions, summary
        interactions.parquet and interactions.json.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(pl.read_parquet(interactions))
    save_figure(draw(table, read_json(summary)["groups"], settings), table, output)
