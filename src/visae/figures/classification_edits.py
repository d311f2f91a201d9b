"""What a probe makes of a picture when a class's latent is suppressed or inserted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from visae.config.settings import FigureSettings
from visae.figures.segmentation_arms import ARM_LABELS, arm_colours, edit_in_words, errors
from visae.figures.style import PAGE_WIDTH, save_figure, style

_BEFORE = "#D0D0D0"
_EDITS = {"suppress": "Pictures of the class", "insert": "Pictures of other classes"}


def data(edits: pl.DataFrame) -> pl.DataFrame:
    """Return one row an edit, arm, class and scale: the class's probability before and after, with intervals.

    class_id is null for the mean over classes. Arms are at their own size.
    """
    edits = edits.filter(pl.col("size") == "natural")
    ends = ("", "_low", "_high")
    probabilities = [f"probability_{when}{end}" for when in ("before", "after") for end in ends]
    return edits.select("edit", "arm", "scale", "class_name", "class_id", "latent", *probabilities, "n_images")


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a panel an edit and scale, a pair of bars an arm, a dot a class."""
    palette = arm_colours(settings)
    arms = {arm: label for arm, label in ARM_LABELS.items() if arm in set(table["arm"])}
    panels = table.select("edit", "scale").unique(maintain_order=True).rows()
    line = settings.font_size / 72
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, (len(arms) * 2.6 + 9.5) * line), layout="constrained")
        for axes, (edit, scale) in zip(
            figure.subplots(1, max(len(panels), 1), sharey=True, squeeze=False)[0], panels, strict=False
        ):
            rows = table.filter(edit=edit, scale=scale)
            _draw_panel(axes, rows, list(arms), palette)
            mean = rows.filter(pl.col("class_id").is_null())
            n_classes = rows["class_id"].n_unique() - 1
            n = f"{n_classes} classes, {mean['n_images'][0]} pictures"
            title = f"{_EDITS[edit]},\n{edit_in_words(scale, breaks=True)}\n{n}"
            axes.set_title(title, loc="left")
            axes.set_xlabel("Probability of the class")
            axes.set_xlim(0, 1)
        figure.axes[0].set_yticks(range(len(arms)), [*arms.values()])
        figure.axes[0].set_ylim(len(arms) - 0.5, -0.5)
        handles: list[Artist] = [
            Patch(color=_BEFORE, label="before the edit"),
            Patch(color=palette["automatic"], label="after it"),
        ]
        handles.append(
            Line2D([], [], color="black", marker=".", linestyle="", markersize=3, label="one class, after it")
        )
        figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def draw_classification_edits(edits: Path, output: Path | Sequence[Path], *, settings: FigureSettings) -> None:
    """Write the comparison as PDF, PNG and CSV.

    Parameters
    ----------
    edits
        edits.parquet of the experiment.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(pl.read_parquet(edits))
    save_figure(draw(table, settings), table, output)


def _draw_panel(axes: Axes, rows: pl.DataFrame, arms: list[str], palette: dict[str, str]) -> None:
    for place, arm in enumerate(arms):
        of_arm = rows.filter(arm=arm)
        mean, single = of_arm.filter(pl.col("class_id").is_null()), of_arm.filter(pl.col("class_id").is_not_null())
        for when, shift, colour in (("before", -0.2, _BEFORE), ("after", 0.2, palette[arm])):
            name = f"probability_{when}"
            axes.barh(
                place + shift,
                mean[name],
                0.38,
                color=colour,
                xerr=errors(mean, name, f"{name}_low", f"{name}_high"),
                error_kw={"elinewidth": 0.9, "ecolor": "black"},
            )
        spread = np.linspace(-0.12, 0.12, len(single)) if len(single) > 1 else np.zeros(len(single))
        axes.plot(single["probability_after"], place + 0.2 + spread, ".", color="black", markersize=2, alpha=0.7)
