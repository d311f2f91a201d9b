"""Accuracy by group before and after latents are suppressed, and which latents serve the shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, plain, save_figure, style

WAYS = {
    "before": "as it is",
    "suppressed": "latents suppressed",
    "random_latent": "random latents, as long",
    "suppressed_retrained": "suppressed, probe retrained",
    "retrained_train": "probe retrained, balanced train",
    "retrained_val": "probe retrained, balanced val",
}
"""Ways of answering, in words; those of latents at their chosen number, controls as long."""

MOST_GROUPS = 8
"""Groups that are drawn: those with the lowest accuracy as the task is."""

_CURVES = {"suppressed": 1, "random_latent": 2, "frequency_matched": 3}
_CURVE_LABELS = {"suppressed": "these latents", "random_latent": "random", "frequency_matched": "as often active"}
# Beside the own size of a latent's change.
_MATCHED = "matched"
_BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}


def data(accuracies: pl.DataFrame, latents: pl.DataFrame) -> pl.DataFrame:
    """Return rows of two kinds, by column `kind`: `accuracy`, one a way and group, and `latent`."""
    drawn = accuracies.filter(
        pl.col("way").is_in([*WAYS, *_CURVES])
        & (pl.col("size").is_null() | (pl.col("size") == _MATCHED) | ~pl.col("way").is_in(list(_CURVES)[1:]))
    ).with_columns(kind=pl.lit("accuracy"))
    columns = ["latent", "rank", "score", "estimate_train", "estimate_weak", "verified", "follows"]
    return pl.concat([drawn, latents.select(*columns).with_columns(kind=pl.lit("latent"))], how="diagonal")


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`."""
    accuracies, latents = (table.filter(kind=kind) for kind in ("accuracy", "latent"))
    line = settings.font_size / 72
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, 2.6 + 10 * line), layout="constrained")
        by_group, by_number, ranking = figure.subplots(1, 3, width_ratios=(1.1, 1, 1))
        _by_group(by_group, accuracies.filter("is_chosen"), settings)
        _by_number(by_number, accuracies.filter(over="worst"), settings)
        _ranking(ranking, latents, settings)
    return figure


def _by_group(axes: Axes, rows: pl.DataFrame, settings: FigureSettings) -> None:
    """Accuracy of each group and of the worst."""
    palette = colours(settings)
    before = rows.filter(way="before", over="group").sort("accuracy", "group").head(MOST_GROUPS)
    names = [*before["group"].to_list(), None]
    ways = [way for way in WAYS if way in set(rows["way"])]
    for number, way in enumerate(ways):
        of_way = rows.filter(way=way)
        found = [
            (of_way.filter(over="worst") if name is None else of_way.filter(over="group", group=name)).row(
                0, named=True
            )
            for name in names
        ]
        places = np.arange(len(names)) + (number - (len(ways) - 1) / 2) * 0.12
        values, low, high = (np.array([row[f"accuracy{end}"] for row in found]) for end in ("", "_low", "_high"))
        errors = np.maximum([values - low, high - values], 0)
        axes.errorbar(
            values, places, xerr=errors, color=palette[number % len(palette)], linestyle="", marker=".", markersize=4,
            elinewidth=0.7, label=WAYS[way],
        )  # fmt: skip
    axes.set_yticks(range(len(names)), ["worst group" if name is None else plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("Accuracy")
    axes.set_title("Groups", loc="left")
    axes.legend(**_BELOW, ncols=1)


def _by_number(axes: Axes, worst: pl.DataFrame, settings: FigureSettings) -> None:
    """Accuracy of the worst group by number of suppressed latents."""
    palette = colours(settings)
    for way, number in _CURVES.items():
        curve = worst.filter(way=way).sort("n_latents")
        x, y, low, high = (
            curve[name].to_numpy() for name in ("n_latents", "accuracy", "accuracy_low", "accuracy_high")
        )
        axes.plot(x, y, color=palette[number], marker=".", markersize=4, label=_CURVE_LABELS[way])
        axes.fill_between(x, low, high, color=palette[number], alpha=0.15, linewidth=0)
    for way, look in (("before", ":"), ("retrained_val", "--")):
        for value in worst.filter(way=way)["accuracy"]:
            axes.axhline(value, color="#606060", linestyle=look, linewidth=0.8, label=WAYS[way])
    if len(worst.filter(way="suppressed")):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("Latents suppressed")
    axes.set_title("Worst group", loc="left")
    axes.legend(**_BELOW, ncols=1)


def _ranking(axes: Axes, latents: pl.DataFrame, settings: FigureSettings) -> None:
    """What each latent gives on train, and takes in weak groups."""
    palette = colours(settings)
    known = [("background", palette[1]), ("texture", palette[0]), (None, "#B3B3B3")]
    any_known = latents["follows"].is_not_null().any()
    for follows, colour in reversed(known):
        part = latents.filter(pl.col("follows").eq_missing(pl.lit(follows, dtype=pl.String)))
        label = "other" if follows is None else f"follows the {follows}"
        axes.scatter(-part["estimate_train"], part["estimate_weak"], s=7, color=colour, linewidths=0, label=label)
    first = latents.filter(pl.col("rank") < 10)
    axes.scatter(
        -first["estimate_train"], first["estimate_weak"], s=22, facecolors="none", edgecolors="black", linewidths=0.6,
        label="first 10",
    )  # fmt: skip
    for line in (axes.axhline, axes.axvline):
        line(0, color="#B3B3B3", linewidth=0.6)
    axes.set_xlabel("Gives on train, log odds")
    axes.set_ylabel("Takes in weak groups")
    axes.set_title("Latents", loc="left")
    if any_known or len(first):
        axes.legend(**_BELOW, ncols=1)


def draw_groups(accuracies: Path, latents: Path, output: Path | Sequence[Path], settings: FigureSettings) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    accuracies, latents
        groups.parquet and spurious.parquet.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(pl.read_parquet(accuracies), pl.read_parquet(latents))
    save_figure(draw(table, settings), table, output)
