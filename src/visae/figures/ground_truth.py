"""How well the best single latents of several dictionaries tell the known causes of made scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.errors import DataError
from visae.features.ground_truth import CAUSES, MEAN
from visae.figures.style import PAGE_WIDTH, colours, plain, style

_COLUMNS = ("dictionary", "cause", "value", "latent", "auc_fit", "auc", "auc_low", "auc_high", "l0", "width")


def data(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row a dictionary, cause and value, the mean over a cause's values (`mean`) among them.

    Parameters
    ----------
    tables
        causes.parquet by the name of the dictionary.
    """
    named = [table.with_columns(pl.lit(name).alias("dictionary")) for name, table in tables.items()]
    return pl.concat(named).select(_COLUMNS)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the means of `data` with their intervals: a panel a cause, a line a dictionary, chance dashed."""
    means = table.filter(value=MEAN)
    dictionaries = means["dictionary"].unique(maintain_order=True).to_list()
    with style(settings):
        height = 0.75 + 0.2 * len(dictionaries)
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        for axes, cause in zip(figure.subplots(1, len(CAUSES), sharex=True, sharey=True), CAUSES, strict=True):
            shown = means.filter(cause=cause)
            below, above = shown["auc"] - shown["auc_low"], shown["auc_high"] - shown["auc"]
            places = [dictionaries.index(name) for name in shown["dictionary"]]
            axes.errorbar(shown["auc"], places, xerr=[below, above], fmt="o", markersize=3, color=colours(settings)[0])
            axes.axvline(0.5, color="#A0A0A0", linestyle="--", linewidth=0.8)
            axes.set_title(cause)
            axes.set_yticks(range(len(dictionaries)), [plain(name) for name in dictionaries])
        axes.set_ylim(len(dictionaries) - 0.4, -0.6)  # the first on top
        figure.supxlabel("Held-out ROC AUC of the best latent, mean over the cause's values", size="medium")
    return figure


def print_ground_truth(table: Path) -> None:
    """Print, as a Markdown table, how well each dictionary's best latents tell each cause.

    Parameters
    ----------
    table
        ground_truth.csv, below results/figures/STUDY/DATASET.
    """
    if not table.is_file():
        raise DataError(f"{table}: no such table; make it with: snakemake {table}")
    means = pl.read_csv(table).filter(value=MEAN)
    print(f"| dictionary | latents | active a patch | {' | '.join(CAUSES)} |")
    print("| --- " * (3 + len(CAUSES)) + "|")
    for (name, width, l0), rows in means.group_by("dictionary", "width", "l0", maintain_order=True):
        found = {row["cause"]: row for row in rows.iter_rows(named=True)}
        cells = ["{auc:.3f} [{auc_low:.3f}, {auc_high:.3f}]".format(**found[cause]) for cause in CAUSES]
        print(f"| `{name}` | {width} | {l0:.1f} | {' | '.join(cells)} |")
