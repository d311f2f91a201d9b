"""Dose and response: shares of changed predictions as a latent is set to ever other values."""

from __future__ import annotations

from typing import Literal

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from visae.config.settings import FigureSettings
from visae.config.tasks import TASKS
from visae.figures.arms import ARM_LABELS, arm_colours, long
from visae.figures.style import PAGE_WIDTH, plain, style
from visae.figures.units import EDITED, kind_of

MOST_CLASSES = 9
"""Classes that get a panel of their own: those with the most edited units."""

_PANELS = 3
_MEASURES: dict[str, Literal["-", ":"]] = {"target_change": "-", "other_change": ":"}


def data(doses: pl.DataFrame) -> pl.DataFrame:
    """Return one row an arm, class, dose and measure: with share, low, high; class_id is null for the mean."""
    about = ["arm", "class_name", "class_id", "unit", "dose", "scale", "natural_norm_share", "n_target", "n_images"]
    return long(doses, about + (["tokens"] if "tokens" in doses.columns else []))


def draw(table: pl.DataFrame, settings: FigureSettings, task: str) -> Figure:
    """Draw the table of `data`.

    Above, means over classes: the share of predictions changed, selectivity, and the share of edited tokens that are
    no longer than natural ones. Below, single classes.
    """
    table = table.filter(unit="largest")
    arms = [arm for arm in ARM_LABELS if arm in set(table["arm"])]
    means, single = table.filter(pl.col("class_id").is_null()), table.filter(pl.col("class_id").is_not_null())
    classes = (
        single.unique("class_id")
        .sort("n_target", "class_id", descending=[True, False])
        .head(MOST_CLASSES)
        .select("class_id", "class_name", "n_target", "n_images")
    )
    n_rows = 1 + -(-len(classes) // _PANELS)
    palette = arm_colours(settings)
    line = settings.font_size / 72
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, n_rows * 1.6 + 4 * line), layout="constrained")
        panels = figure.subplots(n_rows, _PANELS, squeeze=False, sharex=True)
        for axes in panels.flat[_PANELS + len(classes) :]:
            axes.set_axis_off()
        changed, selective, natural = panels[0]
        _curves(changed, means, arms, palette, tuple(_MEASURES))
        changed.set_title(f"Mean over {single['class_id'].n_unique()} classes", loc="left")
        changed.set_ylabel("Answers changed")
        _curves(selective, means, arms, palette, ("selectivity",))
        selective.set_title("Selectivity", loc="left")
        own = means.filter(arm=arms[-1], measure="selectivity").sort("dose") if arms else means
        natural.plot(own["dose"], own["natural_norm_share"], color=palette["automatic"], marker=".", markersize=3)
        natural.set_title(f"Edited {EDITED[kind_of(table)]} of natural norm", loc="left")
        for axes in (changed, natural):
            axes.set_ylim(-0.03, 1.03)
        for axes, (class_id, name, n_target, n_images) in zip(panels.flat[_PANELS:], classes.iter_rows(), strict=False):
            _curves(axes, single.filter(class_id=class_id), arms, palette, tuple(_MEASURES))
            axes.set_title(plain(f"{name} ({n_target:,}; {n_images})"), loc="left")
            axes.set_ylim(-0.03, 1.03)
        for axes in panels[1:, 0]:
            axes.set_ylabel("Answers changed")
        figure.supxlabel("What the latent is set to, × its largest value", fontsize=settings.font_size)
        handles = [Line2D([], [], color=palette[arm], label=ARM_LABELS[arm]) for arm in arms]
        handles += [
            Line2D([], [], color="#606060", linestyle=look, label=words)
            for look, words in zip(_MEASURES.values(), (TASKS[task].target, TASKS[task].other), strict=True)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def _curves(
    axes: Axes, rows: pl.DataFrame, arms: list[str], palette: dict[str, str], measures: tuple[str, ...]
) -> None:
    for arm in arms:
        for measure in measures:
            curve = rows.filter(arm=arm, measure=measure).sort("dose")
            colour = palette[arm]
            axes.plot(curve["dose"], curve["share"], color=colour, linestyle=_MEASURES.get(measure, "-"), linewidth=1.1)
            axes.fill_between(
                curve["dose"].to_numpy(), curve["low"].to_numpy(), curve["high"].to_numpy(), color=colour, alpha=0.18
            )
    axes.axvline(0, linewidth=0.5, color="#BBBBBB")
