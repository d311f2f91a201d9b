"""What an SAE adds: lengths that turn half of the targets, by class, beside dictionaries that learned less."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, plain, style

BESIDE = {"untrained": "untrained dictionaries", "frozen": "frozen random decoders"}
"""Kinds of which there are many, in words."""

RULES = {"labels": "latents chosen by labels", "estimate": "by estimate"}
SINGLE = {"neurons": ("s", "raw neuron"), "pca": ("^", "PCA"), "kmeans": ("v", "k-means")}
MOST_CLASSES = 24
"""Classes that are drawn: the first ones."""

_SIGNIFICANT = 0.05
_MANY = "#B3B3B3"


def data(gain: pl.DataFrame) -> pl.DataFrame:
    """Return one row a rule, class and dictionary; a length is null where it never turns half of the targets."""
    columns = ["rule", "class_id", "class_name", "kind", "number", "length_for_half"]
    more = ["length_for_half_low", "length_for_half_high", "q_untrained", "q_frozen", "selectivity"]
    return gain.select(*columns, *more)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a row a rule, a panel for each kind of which there are many."""
    shown = table["class_id"].unique(maintain_order=True).head(MOST_CLASSES).to_list()
    table = table.filter(pl.col("class_id").is_in(shown))
    rules = table["rule"].unique(maintain_order=True).to_list()
    kinds = [kind for kind in BESIDE if kind in set(table["kind"])]
    line = settings.font_size / 72
    with style(settings):
        height = len(rules) * (2.2 + 1.6 * line * len(shown)) * 0.75 + 4 * line
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        panels = figure.subplots(len(rules), max(len(kinds), 1), squeeze=False, sharex=True, sharey=True)
        for row, rule in zip(panels, rules, strict=True):
            of_rule = table.filter(rule=rule)
            for axes, kind in zip(row, kinds, strict=False):
                _panel(axes, of_rule, kind, shown, settings)
                axes.set_title(plain(f"{BESIDE[kind]}, {RULES.get(rule, rule)}"), loc="left")
        figure.supxlabel("Length that turns half of the targets, × mean norm of tokens", fontsize=settings.font_size)
        figure.legend(handles=_handles(table, settings), loc="outside upper left", ncols=5)
    return figure


def _panel(axes: Axes, table: pl.DataFrame, kind: str, classes: list[int], settings: FigureSettings) -> None:
    longest = 1.5 * float(table["length_for_half"].max() or 1.0)  # type: ignore[arg-type]
    colour = colours(settings)[0]
    names = []
    for place, class_id in enumerate(classes):
        rows = table.filter(class_id=class_id)
        names.append(plain(rows["class_name"][0]) if len(rows) else "")
        many = rows.filter(kind=kind)["length_for_half"].fill_null(longest).to_numpy()
        if len(many):
            spread = 0.3 * (np.arange(len(many)) % 7 / 3 - 1)
            axes.scatter(many, place + spread, s=2, color=_MANY, linewidths=0)
            axes.vlines(np.median(many), place - 0.38, place + 0.38, color="#404040", linewidth=1)
        for single, (marker, _) in SINGLE.items():
            found = rows.filter(kind=single)["length_for_half"].fill_null(longest).to_numpy()
            axes.scatter(
                found, np.full(len(found), place), s=12, marker=marker, facecolors="none", edgecolors="#606060"
            )
        _tested(axes, rows.filter(kind="tested"), f"q_{kind}", place, longest, colour)
    axes.set_xscale("log")
    axes.set_yticks(range(len(classes)), names)
    axes.set_ylim(len(classes) - 0.5, -0.5)


def _tested(axes: Axes, rows: pl.DataFrame, rate: str, place: int, longest: float, colour: str) -> None:
    """The tested dictionary with its interval; filled where it is significant."""
    for row in rows.iter_rows(named=True):
        at = row["length_for_half"] or longest
        low, high = row["length_for_half_low"] or at, row["length_for_half_high"] or longest
        axes.hlines(place, min(low, at), max(high, at), color=colour, linewidth=1)
        filled = row[rate] is not None and row[rate] <= _SIGNIFICANT
        axes.scatter([at], [place], s=22, facecolors=colour if filled else "white", edgecolors=colour, zorder=3)


def _handles(table: pl.DataFrame, settings: FigureSettings) -> list[Line2D]:
    colour, look = colours(settings)[0], {"linestyle": "", "markersize": 4}
    handles = [
        Line2D([], [], marker="o", color=colour, label="SAE, significant", **look),  # type: ignore[arg-type]
        Line2D([], [], marker="o", color=colour, markerfacecolor="white", label="not significant", **look),  # type: ignore[arg-type]
        Line2D([], [], marker=".", color=_MANY, label="one of many", **look),  # type: ignore[arg-type]
    ]
    shown: dict[str, Any] = {kind: SINGLE[kind] for kind in SINGLE if kind in set(table["kind"])}
    return handles + [
        Line2D([], [], marker=marker, color="#606060", markerfacecolor="none", label=words, **look)  # type: ignore[arg-type]
        for marker, words in shown.values()
    ]
