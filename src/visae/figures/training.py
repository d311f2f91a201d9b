"""How the SAEs of a study learned: error, active latents and dead latents over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, plain, style

_PANELS = {
    "normalized_mse": "Normalized MSE",
    "l0": "Active latents a patch (L0)",
    "dead_share": "Share of dead latents",
}
_SPLIT_LINES: dict[str, Literal["--", "-"]] = {"train": "--", "val": "-"}
# A few dead latents of thousands are not to look like many.
_LEAST_DEAD_SHARE_SHOWN = 0.05


def data(runs: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row a measurement: sae, split, step, metric, value; what was not measured has no row.

    Parameters
    ----------
    runs
        metrics.parquet by the name of the SAE: step, split, normalized_mse, l0, dead_share.
    """
    tables = [
        metrics.unpivot(list(_PANELS), index=["split", "step"], variable_name="metric", value_name="value")
        .drop_nulls("value")
        .select(pl.lit(name).alias("sae"), "split", "step", "metric", "value")
        for name, metrics in runs.items()
    ]
    return pl.concat(tables)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: one colour a SAE, train dashed and val solid."""
    saes = table["sae"].unique(maintain_order=True).to_list()
    palette = {sae: colours(settings)[number % len(colours(settings))] for number, sae in enumerate(saes)}
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, PAGE_WIDTH * 0.36), layout="constrained")
        for axes, (metric, label) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
            shown = table.filter(pl.col("metric") == metric)
            for (sae, split), line in shown.group_by("sae", "split", maintain_order=True):
                ordered = line.sort("step")
                # A single measurement, as of val at the end, is no line: it needs a mark.
                axes.plot(
                    ordered["step"],
                    ordered["value"],
                    _SPLIT_LINES.get(str(split), ":"),
                    color=palette[str(sae)],
                    marker="o" if ordered.height == 1 else None,
                    markersize=3,
                )
            axes.set_xlabel("Step")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            if metric == "dead_share":
                axes.set_ylim(top=max(_LEAST_DEAD_SHARE_SHOWN, axes.get_ylim()[1]))
        handles = [Line2D([], [], color=palette[sae], label=plain(sae)) for sae in saes]
        handles += [
            Line2D([], [], color="#606060", linestyle=_SPLIT_LINES[split], label=split)
            for split in _SPLIT_LINES
            if split in table["split"]
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 6))
    return figure
