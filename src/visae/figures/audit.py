"""What survives an audit: yields of each source of meanings for several dictionaries, and the areas behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, plain, style

SOURCE_LABELS = {
    "labels": "best class of patches",
    "picture_labels": "best class of pictures",
    "causes": "best known cause",
    "exemplars": "class of exemplars",
    "random": "at random",
    "names": "names",
}
"""Sources in words; others are called as they are."""

_MARKS = "osD^vP"
_SHARES = ("survived", "specific", "above")
_PANELS = (
    ("survived", "Above chance"),
    ("above", "Above untrained"),
    ("auc", "Held-out ROC AUC"),
)
_QUARTILES = {"median": "", "lower": "_low", "upper": "_high"}


def data(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row a dictionary and source: shares with what their bars reach, and AUCs.

    Bars of a dictionary are Wilson's 95 % intervals; untrained dictionaries of an SAE are one row, the mean of all with
    the least and the largest (`untrained` says of how many).

    Parameters
    ----------
    tables
        yields.parquet by the name of the dictionary.
    """
    return pl.concat(part for name, table in tables.items() for part in (_own(name, table), _untrained(name, table)))


def _own(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """Rows of a dictionary itself."""
    shares = [f"{share}{end}" for share in _SHARES for end in ("", "_low", "_high")]
    quartiles = [pl.col(f"auc_{quartile}").alias(f"auc{end}") for quartile, end in _QUARTILES.items()]
    about = pl.lit(name).alias("dictionary"), pl.lit(0, pl.Int32).alias("untrained"), "source"
    return table.filter(pl.col("untrained").is_null()).select(*about, *shares, *quartiles)


def _untrained(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """Rows of the untrained dictionaries beside it, in one."""
    ends = {"": pl.Expr.mean, "_low": pl.Expr.min, "_high": pl.Expr.max}
    shares = [reduced(pl.col(share)).alias(f"{share}{end}") for share in _SHARES for end, reduced in ends.items()]
    # Quartiles of proposals, in the mean over dictionaries.
    quartiles = [pl.col(f"auc_{quartile}").mean().alias(f"auc{end}") for quartile, end in _QUARTILES.items()]
    others = table.filter(pl.col("untrained").is_not_null())
    found = others.group_by("source", maintain_order=True).agg(pl.len().alias("n"), *shares, *quartiles)
    about = pl.lit(name).alias("dictionary"), pl.col("n").cast(pl.Int32).alias("untrained"), "source"
    return found.select(*about, pl.exclude("n", "source"))


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a panel a measure, a group of marks a source, a mark a dictionary."""
    sources = table["source"].unique(maintain_order=True).to_list()
    # Own sources in their order, then those of files.
    sources.sort(key=lambda name: list(SOURCE_LABELS).index(name) if name in SOURCE_LABELS else len(SOURCE_LABELS))
    series = table.select("dictionary", pl.col("untrained") > 0).unique(maintain_order=True).rows()
    with style(settings):
        line = 1.5 * settings.font_size / 72
        height = 0.9 + line * (1 + 0.42 * len(series)) * len(sources) + line * (1 + len(series) // 3)
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        panels = figure.subplots(1, len(_PANELS), sharey=True)
        for axes, (measure, title) in zip(panels, _PANELS, strict=True):
            for number, (dictionary, untrained) in enumerate(series):
                rows = table.filter(pl.col("dictionary") == dictionary, (pl.col("untrained") > 0) == untrained)
                label = f"untrained, as {dictionary}" if untrained else dictionary
                look = _look(series, number, settings)
                _marks(axes, rows, measure, sources, (number - (len(series) - 1) / 2) * 0.8 / len(series), label, look)
            axes.set_title(title, loc="left")
            axes.set_yticks(range(len(sources)), [plain(SOURCE_LABELS.get(name, name)) for name in sources])
            axes.set_xlim(-0.02, 1.02)
            axes.set_xlabel("Median and quartiles" if measure == "auc" else "Share of proposals")
            if measure == "auc":
                axes.axvline(0.5, color="#A0A0A0", linestyle="--", linewidth=0.8)
                axes.set_xlim(0.35, 1.01)
        panels[0].set_ylim(len(sources) - 0.45, -0.55)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _look(series: list[tuple[str, bool]], number: int, settings: FigureSettings) -> dict[str, Any]:
    """Colour and mark of a series; untrained dictionaries are grey, with the mark of the one that they stand beside."""
    dictionary, untrained = series[number]
    place = [name for name, grey in series if not grey].index(dictionary)
    palette = colours(settings)
    return {
        "color": "#A0A0A0" if untrained else palette[place % len(palette)],
        "fmt": _MARKS[place % len(_MARKS)],
        "markersize": 3,
        "elinewidth": 0.8,
    }


def _marks(
    axes: Axes, rows: pl.DataFrame, measure: str, sources: list[str], shift: float, label: str, look: dict[str, Any]
) -> None:
    """Draw one dictionary's marks with their bars."""
    shown = rows.filter(pl.col(measure).is_not_null())
    values, low, high = (shown[f"{measure}{end}"].to_numpy() for end in ("", "_low", "_high"))
    places = np.array([sources.index(source) for source in shown["source"]]) + shift
    errors = np.maximum([values - low, high - values], 0)
    axes.errorbar(values, places, xerr=errors, linestyle="", label=plain(label), **look)
