"""How many latents of each dictionary are selective for one cause, on pairs of pictures that differ in one."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, plain, style


def data(dictionaries: pl.DataFrame) -> pl.DataFrame:
    """Return one row a dictionary and cause, and one for all causes, whose cause is null.

    Parameters
    ----------
    dictionaries
        dictionaries.parquet.
    """
    shares = [f"{name}{end}" for name in ("share", "difference") for end in ("", "_low", "_high")]
    return dictionaries.select("dictionary", "kind", "cause", "n_active", "n_found", "n_again", *shares)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: shares with their intervals, and which causes they are made of."""
    names = table["dictionary"].unique(maintain_order=True).to_list()
    causes = table["cause"].drop_nulls().unique(maintain_order=True).to_list()
    palette = colours(settings)
    places = np.arange(len(names))
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, 0.9 + 0.2 * len(names)), layout="constrained")
        whole, parts = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.2))
        total = table.filter(pl.col("cause").is_null())
        share, low, high = (100 * total[name].to_numpy() for name in ("share", "share_low", "share_high"))
        errors = np.maximum([share - low, high - share], 0)
        whole.errorbar(share, places, xerr=errors, fmt="o", markersize=3, color="black")
        whole.set_title("Selective for one cause", loc="left")
        whole.set_xlim(left=0)
        left = np.zeros(len(names))
        for number, cause in enumerate(causes):
            width = 100 * table.filter(cause=cause)["share"].to_numpy()
            colour = palette[number % len(palette)]
            parts.barh(places, width, left=left, height=0.7, color=colour, label=plain(cause))
            left += width
        parts.set_title("By cause", loc="left")
        parts.legend(loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0)
        for axes in (whole, parts):
            axes.set_xlabel("Active latents (%)")
        whole.set_yticks(places, [plain(name) for name in names])
        whole.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    return figure
