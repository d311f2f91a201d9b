"""Which latents respond to which cause: the most selective ones of each, a row a latent, a column a cause."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, plain, style

SHOWN = 5
"""Latents of each cause that are drawn."""

MOST_PANELS = 3
"""Dictionaries that are drawn: the first ones."""


def data(counterfactuals: pl.DataFrame) -> pl.DataFrame:
    """Return one row a cause of the latents that are drawn: the most selective of each cause.

    Parameters
    ----------
    counterfactuals
        counterfactuals.parquet.
    """
    shown = ("dictionary", "latent", "first", "cause", "response", "response_low", "response_high", "where")
    more = ("network_where", "selectivity", "selectivity_low", "selectivity_high")
    order = counterfactuals["cause"].unique(maintain_order=True)
    best = (
        counterfactuals.filter("again", pl.col("first") == pl.col("cause"))
        .sort("selectivity", descending=True, maintain_order=True)
        .group_by("dictionary", "first", maintain_order=True)
        .head(SHOWN)
        .select("dictionary", "latent", rank=pl.col("first").replace_strict(order, range(len(order))))
    )
    names = counterfactuals["dictionary"].unique(maintain_order=True).to_list()[:MOST_PANELS]
    chosen = counterfactuals.join(best, on=["dictionary", "latent"], how="inner", maintain_order="left")
    chosen = chosen.filter(pl.col("dictionary").is_in(names))
    place = pl.col("dictionary").replace_strict(names, range(len(names)), default=len(names))
    chosen = chosen.sort(place, "rank", "selectivity", "latent", descending=[False, False, True, False])
    return chosen.select(*shown, *more)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: responses in shades, 1 being as far as the network itself moves."""
    names = table["dictionary"].unique(maintain_order=True).to_list()
    longest = max((table.filter(dictionary=name)["latent"].n_unique() for name in names), default=1)
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, 1.1 + longest * settings.font_size / 72 * 1.3), layout="constrained")
        panels = figure.subplots(1, max(len(names), 1), squeeze=False)[0]
        if not names:
            panels[0].set_axis_off()
            panels[0].text(0.5, 0.5, "no latent is selective", transform=panels[0].transAxes, ha="center")
            return figure
        for axes, name in zip(panels, names, strict=True):
            rows = table.filter(dictionary=name)
            causes = sorted(rows["cause"].unique().to_list(), key=table["cause"].to_list().index)
            latents = rows.select("latent", "first").unique(maintain_order=True)
            values = np.array(
                [
                    [rows.filter(latent=latent, cause=cause)["response"][0] for cause in causes]
                    for latent in latents["latent"]
                ],
                dtype=float,
            )
            # By row: what is compared are the causes of one latent.
            relative = values / np.maximum(np.nanmax(values, axis=1, keepdims=True), 1e-12)
            axes.imshow(relative, cmap="Greys", vmin=0, vmax=1, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                colour = "white" if relative[row, column] > 0.5 else "black"
                axes.text(
                    column, row, f"{value:.1f}", ha="center", va="center", color=colour, size=settings.font_size * 0.7
                )
            axes.set_xticks(range(len(causes)), [plain(cause) for cause in causes], rotation=90)
            labels = [f"{plain(first)} {latent}" for latent, first in latents.iter_rows()]
            axes.set_yticks(range(len(labels)), labels, size=settings.font_size * 0.75)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(plain(name), loc="left")
    return figure
