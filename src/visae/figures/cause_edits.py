"""What suppressing the latents of one cause takes from what can be read of every cause, a panel a dictionary."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, plain, style

MOST_PANELS = 6
"""Dictionaries that are drawn: the first ones."""

_ACROSS = 3


def data(editing: pl.DataFrame) -> pl.DataFrame:
    """Return one row a dictionary, edited cause and cause that is read.

    Parameters
    ----------
    editing
        editing.parquet.
    """
    ends = ("", "_low", "_high")
    shown = [f"{name}{end}" for name in ("effect", "control") for end in ends]
    return editing.select("dictionary", "edited", "read", "n_latents", *shown, "q", "accuracy_before", "accuracy_after")


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: effect beyond that of random latents, in shades; what is significant has a number."""
    names = table["dictionary"].unique(maintain_order=True).to_list()[:MOST_PANELS]
    causes = table["read"].unique(maintain_order=True).to_list()
    beyond = table.with_columns(beyond=pl.col("effect") - pl.col("control"))
    limit = float(np.nanmax(np.abs(beyond["beyond"].to_numpy()), initial=0)) or 1.0
    down = max(1, -(-len(names) // _ACROSS))
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, 2.2 * down), layout="constrained")
        panels = figure.subplots(down, min(_ACROSS, max(len(names), 1)), squeeze=False).ravel()
        image = None
        for axes, name in zip(panels, names, strict=False):
            rows = {(row["edited"], row["read"]): row for row in beyond.filter(dictionary=name).iter_rows(named=True)}
            found = [[rows.get((edited, read)) for read in causes] for edited in causes]
            values = np.array([[np.nan if row is None else row["beyond"] for row in line] for line in found])
            image = axes.imshow(np.ma.masked_invalid(values), cmap="RdBu", vmin=-limit, vmax=limit)
            for (down_to, across), value in np.ndenumerate(values):
                row = found[down_to][across]
                if row is not None and row["q"] is not None and row["q"] <= 0.05:
                    colour = "white" if abs(value) > 0.6 * limit else "black"
                    text, size = f"{value:.1f}", settings.font_size * 0.75
                    axes.text(across, down_to, text, ha="center", va="center", color=colour, size=size)
            labels = [plain(cause) for cause in causes]
            axes.set_xticks(range(len(causes)), labels, rotation=90)
            axes.set_yticks(range(len(causes)), labels)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(plain(name), loc="left")
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        panels[0].set_ylabel("Latents suppressed")
        figure.supxlabel("Cause that is read", size="medium")
        if image is not None:
            bar = figure.colorbar(image, ax=panels.tolist(), shrink=0.6, label="Log odds, beyond random latents (SD)")
            bar.outline.set_visible(False)
    return figure
