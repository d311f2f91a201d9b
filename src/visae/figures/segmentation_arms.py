"""What each arm changes in the segmentation: edited patches against the rest, for all classes and for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, save_figure, style

ARM_LABELS = {
    "none": "No edit",
    "reconstruction": "SAE's reconstruction",
    "random_vector": "Random vector of same length",
    "random_latent": "Random latent",
    "automatic": "The class's latent",
}
"""Arms in the order in which they are drawn, in words."""

MOST_CLASSES = 20
"""Classes that get a line of their own: those with the most edited patches."""

_OF_CLASS = ("random_vector", "random_latent", "automatic")
_MEASURES = {"target_change": "edited patches", "other_change": "all other patches"}


def data(arms: pl.DataFrame) -> pl.DataFrame:
    """Return one row an arm, class, scale and measure: with share, low, high, n_target, n_images.

    class_id is null for the mean over classes.
    """
    about = ["arm", "class_name", "class_id", "scale", "latent", "n_target", "n_images"]
    return pl.concat(
        arms.select(
            *about,
            pl.lit(measure).alias("measure"),
            pl.col(measure).alias("share"),
            pl.col(f"{measure}_low").alias("low"),
            pl.col(f"{measure}_high").alias("high"),
        )
        for measure in _MEASURES
    )


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a row of panels a scale, means over classes left, single classes right."""
    scales = table["scale"].unique(maintain_order=True).to_list()
    classes = (
        table.filter(pl.col("class_id").is_not_null())
        .unique("class_id")
        .sort("n_target", "class_id", descending=[True, False])
        .select("class_id", "class_name", "n_target", "n_images")
    )
    shown = classes.head(MOST_CLASSES)
    line = settings.font_size / 72
    height = len(scales) * (max(len(shown), 6) * 1.7 * line + 6 * line) + 4 * line
    palette = arm_colours(settings)
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        panels = figure.subplots(len(scales), 2, squeeze=False, sharex=True)
        for (means, single), scale in zip(panels, scales, strict=True):
            of_scale = table.filter(pl.col("scale") == scale)
            _draw_means(means, of_scale.filter(pl.col("class_id").is_null()), palette)
            means.set_title(f"{edit_in_words(scale).capitalize()}\nMean over {len(classes)} classes", loc="left")
            _draw_classes(single, of_scale, shown, palette)
            which = "Each class" if len(shown) == len(classes) else f"The {len(shown)} classes with the most patches"
            single.set_title(which, loc="left")
        for axes in panels[-1]:
            axes.set_xlabel("Share of predictions changed")
            axes.set_xlim(-0.02, 1.02)
        handles = [
            Line2D([], [], color=palette[arm], marker="o", markersize=4, linestyle="", label=ARM_LABELS[arm])
            for arm in _OF_CLASS
        ]
        handles += [
            Line2D([], [], color="#606060", linestyle="", label=label, **_marker(measure))
            for measure, label in _MEASURES.items()
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def draw_segmentation_arms(arms: Path, output: Path | Sequence[Path], *, settings: FigureSettings) -> None:
    """Write the comparison of arms as PDF, PNG and CSV.

    Parameters
    ----------
    arms
        arms.parquet of the experiment.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(pl.read_parquet(arms))
    save_figure(draw(table, settings), table, output)


def arm_colours(settings: FigureSettings) -> dict[str, str]:
    """Colour of each arm: controls first, so that the class's latent stands out."""
    palette = colours(settings)
    chosen = ("#8C8C8C", "#595959", palette[5], palette[4], palette[0])
    if settings.palette == "grey":
        chosen = ("#B3B3B3", "#8C8C8C", "#737373", "#595959", "#000000")
    return dict(zip(ARM_LABELS, chosen, strict=True))


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
    if measure == "target_change":
        return {"marker": "o", "markersize": 4}
    return {"marker": "s", "markersize": 4, "markerfacecolor": "white"}


def _point(axes: Axes, rows: pl.DataFrame, place: float, colour: str, measure: str) -> None:
    axes.errorbar(
        rows["share"].to_numpy(),
        [place] * len(rows),
        xerr=errors(rows, "share", "low", "high"),
        color=colour,
        linestyle="",
        elinewidth=0.9,
        **_marker(measure),
    )


def _draw_means(axes: Axes, rows: pl.DataFrame, palette: dict[str, str]) -> None:
    """One line an arm, edited patches above others."""
    for place, arm in enumerate(ARM_LABELS):
        for measure, shift in zip(_MEASURES, (-0.14, 0.14), strict=True):
            _point(axes, rows.filter(arm=arm, measure=measure), place + shift, palette[arm], measure)
    axes.set_yticks(range(len(ARM_LABELS)), [*ARM_LABELS.values()])
    axes.set_ylim(len(ARM_LABELS) - 0.5, -0.5)


def _draw_classes(axes: Axes, rows: pl.DataFrame, classes: pl.DataFrame, palette: dict[str, str]) -> None:
    """One line a class: edited patches by arm, and the others for the class's latent."""
    labels = []
    for place, (class_id, name, n_target, n_images) in enumerate(classes.iter_rows()):
        of_class = rows.filter(class_id=class_id)
        for arm, shift in zip(_OF_CLASS, (0.2, 0.0, -0.2), strict=True):
            _point(
                axes, of_class.filter(arm=arm, measure="target_change"), place + shift, palette[arm], "target_change"
            )
        own = of_class.filter(arm="automatic", measure="other_change")
        _point(axes, own, place + 0.2, palette["automatic"], "other_change")
        labels.append(f"{name} ({n_target:,}; {n_images})".replace("$", r"\$"))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylabel("Class (edited patches; pictures)")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", linewidth=0.3, color="#DDDDDD")
    axes.set_axisbelow(True)
