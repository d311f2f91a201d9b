"""What each arm changes in the answers to a task: what the edit is about against the rest, for all classes and each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from visae.config.settings import FigureSettings
from visae.config.tasks import TASKS
from visae.figures.style import PAGE_WIDTH, colours, plain, style

ARM_LABELS = {
    "none": "No edit",
    "reconstruction": "SAE's reconstruction",
    "random_vector": "Random vector",
    "random_latent": "Random latent",
    "frequency_matched": "Random latent of same frequency",
    "neuron": "Raw neuron",
    "class_difference": "Difference of class means",
    "head_weight": "What the head reads",
    "latent_by_auc": "Latent chosen by AUC",
    "latent_by_gradient": "Latent chosen by gradient",
    "manual": "Latent named by hand",
    "automatic": "The class's latent",
}
"""Arms in the order in which they are drawn, in words."""

MOST_CLASSES = 20
"""Classes that get a line of their own: those with the most edited units."""

_OF_CLASS = ("random_vector", "random_latent", "frequency_matched", "neuron", "automatic")
"""Arms that are drawn for single classes."""

_MEASURES = ("target_change", "other_change")
_SIZES = {"natural": "each at its own size", "matched": "all as long as the class's latent's change"}
# These have one size, which stands for both.
_OF_ONE_SIZE = ("none", "automatic")


def data(arms: pl.DataFrame) -> pl.DataFrame:
    """Return one row an edit, arm, size, class, scale and measure: with share, low, high, n_target, n_images.

    class_id is null for the mean over classes.
    """
    about = ["edit", "arm", "size", "class_name", "class_id", "scale", "n_target", "n_images"]
    return long(arms.filter(pl.col("class_name") != "pooled"), about)


def long(table: pl.DataFrame, about: list[str]) -> pl.DataFrame:
    """Return one row a measure of COMMON: what the row is about, measure, share, low, high."""
    return pl.concat(
        table.select(
            *about,
            pl.lit(measure).alias("measure"),
            pl.col(measure).alias("share"),
            pl.col(f"{measure}_low").alias("low"),
            pl.col(f"{measure}_high").alias("high"),
        )
        for measure in (*_MEASURES, "selectivity")
    )


def draw(table: pl.DataFrame, settings: FigureSettings, task: str) -> Figure:
    """Draw the table of `data`.

    For each edit and scale means over classes by arm, and the selectivity of some arms by class; where classes are
    suppressed, on the left arms at their own size, on the right with the length of the automatic arm's change.
    """
    edits = table.select("edit", "scale").unique(maintain_order=True).rows()
    classes = _classes(table)
    arms = [arm for arm in ARM_LABELS if arm in set(table["arm"])]
    line = settings.font_size / 72
    means, each = (len(arms) * 1.7 + 5) * line, (min(len(classes), MOST_CLASSES) * 1.9 + 4) * line
    heights = [means + each if edit == "suppress" else max(means, each) for edit, _ in edits]
    palette = arm_colours(settings)
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 4 * line), layout="constrained")
        # Each edit is laid out for itself, as their panels have other labels.
        parts = figure.subfigures(max(len(edits), 1), 1, squeeze=False, height_ratios=heights or [1])[:, 0]
        for part, (edit, scale) in zip(parts, edits, strict=False):
            of_edit = table.filter(edit=edit, scale=scale)
            if edit == "suppress":
                panels = part.subplots(2, 2, sharey="row", height_ratios=(means, each))
                _draw_suppressed(panels, of_edit, classes, arms, palette)
            else:
                _draw_inserted(part.subplots(1, 2), of_edit, classes, arms, palette)
        handles = [
            Line2D([], [], color="#606060", linestyle="", label=label, **_marker(measure))
            for measure, label in zip(_MEASURES, (TASKS[task].target, TASKS[task].other), strict=True)
        ]
        handles += [
            Line2D([], [], color=palette[arm], marker="o", markersize=4, linestyle="", label=ARM_LABELS[arm])
            for arm in _OF_CLASS
            if arm in arms
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


def _classes(table: pl.DataFrame) -> pl.DataFrame:
    """Classes that are suppressed, those with most units first: class_id, class_name, n_target, n_images."""
    return (
        table.filter(pl.col("class_id").is_not_null(), pl.col("edit") == "suppress")
        .unique("class_id")
        .sort("n_target", "class_id", descending=[True, False])
        .select("class_id", "class_name", "n_target", "n_images")
    )


def _draw_suppressed(
    panels: Sequence[Sequence[Axes]],
    table: pl.DataFrame,
    classes: pl.DataFrame,
    arms: list[str],
    palette: dict[str, str],
) -> None:
    """Draw two rows of panels: means by arm above, classes below; a column a size."""
    scale = table["scale"][0]
    for column, (size, words) in enumerate(_SIZES.items()):
        rows = table.filter((pl.col("size") == size) | pl.col("arm").is_in(_OF_ONE_SIZE))
        above, below = panels[0][column], panels[1][column]
        _draw_means(above, rows.filter(pl.col("class_id").is_null()), arms, palette)
        edit = f"{edit_in_words(scale).capitalize()};\n" if column == 0 else "\n"
        above.set_title(f"{edit}{words}", loc="left")
        above.set_xlabel(f"Answers changed ({len(classes)} classes)")
        _draw_classes(below, rows, classes.head(MOST_CLASSES), palette)
        below.set_xlabel("Selectivity")
        if column == 0:
            below.set_title("Class (units that it is about; in how many pictures or rows)", loc="left")
    _same_limits(panels[1])


def _draw_inserted(
    panels: Sequence[Axes], table: pl.DataFrame, classes: pl.DataFrame, arms: list[str], palette: dict[str, str]
) -> None:
    """Draw means by arm beside classes; controls have the length of the automatic arm's change."""
    _draw_means(panels[0], table.filter(pl.col("class_id").is_null()), arms, palette)
    panels[0].set_title(f"Inserted elsewhere, all as long:\n{edit_in_words(table['scale'][0])}", loc="left")
    panels[0].set_xlabel("Answers changed to the class")
    _draw_classes(panels[1], table, classes.head(MOST_CLASSES), palette)
    panels[1].set_xlabel("Selectivity")


def _same_limits(panels: Sequence[Axes]) -> None:
    limits = np.array([axes.get_xlim() for axes in panels])
    for axes in panels:
        axes.set_xlim(limits[:, 0].min(), limits[:, 1].max())


def arm_colours(settings: FigureSettings) -> dict[str, str]:
    """Colour of each arm: controls pale, so that the class's latent stands out."""
    palette = colours(settings)
    if settings.palette == "grey":
        chosen = [palette[3]] * (len(ARM_LABELS) - 1)
        return dict(zip(ARM_LABELS, [*chosen, palette[0]], strict=True))
    own = {
        "random_vector": palette[5],
        "random_latent": palette[4],
        "frequency_matched": palette[1],
        "neuron": palette[3],
        "class_difference": palette[2],
        "head_weight": palette[2],
        "latent_by_auc": palette[0],
        "latent_by_gradient": palette[0],
        "manual": palette[0],
        "automatic": palette[0],
    }
    return {arm: own.get(arm, "#737373") for arm in ARM_LABELS}


def edit_in_words(scale: float, breaks: bool = False) -> str:
    """Say what a latent is set to; with `breaks` on two lines."""
    between = "\n" if breaks else " "
    return f"latent set to{between}{scale:g} × its largest value".replace("-", "−") if scale else "latent set to 0"


def errors(rows: pl.DataFrame, value: str, low: str, high: str) -> np.ndarray:
    """Lengths of error bars (2, n); a percentile interval need not hold its estimate, a bar cannot be negative."""
    below = (rows[value] - rows[low]).to_numpy()
    above = (rows[high] - rows[value]).to_numpy()
    return np.maximum(np.nan_to_num(np.stack([below, above]).astype(float)), 0)


def _marker(measure: str) -> dict[str, Any]:
    if measure == "other_change":
        return {"marker": "s", "markersize": 4, "markerfacecolor": "white"}
    return {"marker": "o", "markersize": 4}


def _point(axes: Axes, rows: pl.DataFrame, place: float, colour: str, measure: str) -> None:
    rows = rows.filter(measure=measure)
    axes.errorbar(
        rows["share"].to_numpy(),
        [place] * len(rows),
        xerr=errors(rows, "share", "low", "high"),
        color=colour,
        linestyle="",
        elinewidth=0.9,
        **_marker(measure),
    )


def _draw_means(axes: Axes, rows: pl.DataFrame, arms: list[str], palette: dict[str, str]) -> None:
    """One line an arm, edited patches above others."""
    for place, arm in enumerate(arms):
        for measure, shift in zip(_MEASURES, (-0.14, 0.14), strict=True):
            _point(axes, rows.filter(arm=arm), place + shift, palette[arm], measure)
    _lines(axes, [ARM_LABELS[arm] for arm in arms])
    axes.set_xlim(-0.02, 1.02)


def _draw_classes(axes: Axes, rows: pl.DataFrame, classes: pl.DataFrame, palette: dict[str, str]) -> None:
    """One line a class: selectivity of some arms."""
    labels = []
    arms = [arm for arm in _OF_CLASS if arm in set(rows["arm"])]
    for place, (class_id, name, n_target, n_images) in enumerate(classes.iter_rows()):
        for arm, shift in zip(arms, np.linspace(0.32, -0.32, len(arms)), strict=True):
            _point(axes, rows.filter(class_id=class_id, arm=arm), place + shift, palette[arm], "selectivity")
        labels.append(plain(f"{name} ({n_target:,}; {n_images})"))
    _lines(axes, labels)
    axes.axvline(0, linewidth=0.5, color="#BBBBBB")


def _lines(axes: Axes, labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.grid(axis="y", linewidth=0.3, color="#DDDDDD")
    axes.set_axisbelow(True)
