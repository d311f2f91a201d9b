"""What a probe makes of pictures when a class's latent is suppressed or inserted, for each arm."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from visae.config.settings import FigureSettings
from visae.figures.arms import ARM_LABELS, arm_colours, edit_in_words, errors
from visae.figures.style import PAGE_WIDTH, style
from visae.figures.units import EDITED, kind_of

_BEFORE = "#D0D0D0"
_SIZES = ("natural", "matched")
# What is drawn of each edit, on the left and on the right: the measures before and after, and the label of the axis.
_PANELS = {
    "suppress": (
        (("probability_before", "probability_after"), "Probability of the class"),
        ((None, "other_mass_moved"), "Probability moved in other classes' pictures"),
    ),
    "insert": (
        (("probability_before", "probability_after"), "Probability of the class"),
        (("top1_before", "top1_after"), "Share in which it is the likeliest"),
    ),
}


def data(arms: pl.DataFrame) -> pl.DataFrame:
    """Return one row an edit, scale, arm, size and class: all measures with their intervals.

    class_id is null for the mean over classes.
    """
    latents = pl.col("latents").cast(pl.List(pl.String)).list.join(" ")
    return (
        arms.filter(pl.col("class_name") != "pooled")
        .with_columns(latents)
        .sort("edit", "scale", "arm", descending=[True, False, False], maintain_order=True)
    )


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: for each edit and scale two panels, a bar an arm, a dot a class."""
    palette = arm_colours(settings)
    edits = table.select("edit", "scale").unique(maintain_order=True).rows()
    line = settings.font_size / 72
    arms = [
        [arm for arm in ARM_LABELS if arm in set(table.filter(edit=edit, scale=scale)["arm"])] for edit, scale in edits
    ]
    heights = [(len(of_edit) * 2.2 + 5) * line for of_edit in arms]
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 3.5 * line), layout="constrained")
        panels = figure.subplots(max(len(edits), 1), 2, squeeze=False, sharey="row", height_ratios=heights or [1])
        for (edit, scale), of_edit, row in zip(edits, arms, panels, strict=False):
            rows = table.filter(edit=edit, scale=scale)
            for axes, ((before, after), label) in zip(row, _PANELS[edit], strict=True):
                _draw_panel(axes, rows, of_edit, palette, before, after)
                axes.set_xlabel(label)
                axes.set_xlim(0, 1)
            mean = rows.filter(pl.col("class_id").is_null(), arm="automatic")
            kind = kind_of(table)
            inserted = "class token" if kind == "class" else "central quarter"
            where = f"Own pictures, active {EDITED[kind]}" if edit == "suppress" else f"Other pictures, {inserted}"
            sizes = f"{rows['class_id'].n_unique() - 1} classes, {mean['n_images'][0]} pictures"
            others = f", {mean['n_other'][0]} of other classes" if edit == "suppress" else ""
            row[0].set_title(f"{where}: {edit_in_words(scale)}\n{sizes}{others}", loc="left")
            row[0].set_yticks(range(len(of_edit)), [ARM_LABELS[arm] for arm in of_edit])
            row[0].set_ylim(len(of_edit) - 0.5, -0.5)
        figure.legend(handles=_legend(palette), loc="outside upper left", ncols=2)
    return figure


def _legend(palette: dict[str, str]) -> list[Artist]:
    return [
        Patch(color=_BEFORE, label="before the edit"),
        Patch(color=palette["automatic"], label="after it, each arm at its own size"),
        Line2D(
            [],
            [],
            color="black",
            marker="D",
            markersize=3.5,
            markerfacecolor="white",
            linestyle="",
            label="as long as the class's latent's change",
        ),
        Line2D([], [], color="black", marker=".", markersize=3, linestyle="", label="one class"),
    ]


def _draw_panel(
    axes: Axes, rows: pl.DataFrame, arms: list[str], palette: dict[str, str], before: str | None, after: str
) -> None:
    """Draw means over classes: a bar at the arm's own size, a mark where it is as long as the class's."""
    for place, arm in enumerate(arms):
        of_arm = rows.filter(arm=arm)
        mean = of_arm.filter(pl.col("class_id").is_null())
        if before is not None:
            axes.barh(place, mean[before][:1], 0.8, color=_BEFORE)
        for size, shift in zip(_SIZES, (-0.12, 0.22), strict=True):
            found = mean.filter(size=size)
            if found.is_empty():
                continue
            spread = errors(found, after, f"{after}_low", f"{after}_high")
            if size == "natural":
                style_of_error = {"elinewidth": 0.9, "ecolor": "black"}
                axes.barh(place + shift, found[after], 0.34, color=palette[arm], xerr=spread, error_kw=style_of_error)
                single = of_arm.filter(pl.col("class_id").is_not_null(), size=size)
                jitter = np.linspace(-0.1, 0.1, len(single)) if len(single) > 1 else np.zeros(len(single))
                axes.plot(single[after], place + shift + jitter, ".", color="black", markersize=2, alpha=0.7)
            else:
                axes.errorbar(
                    found[after],
                    [place + shift],
                    xerr=spread,
                    fmt="D",
                    color=palette[arm],
                    markersize=3.5,
                    markerfacecolor="white",
                    elinewidth=0.9,
                )
