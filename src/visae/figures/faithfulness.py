"""What the heads keep when a layer's tokens are replaced: a bar a replacement, a panel a measure."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, style
from visae.figures.units import kind_of

REPLACEMENT_LABELS = {
    "as_is": "As they are",
    "reconstruction": "SAE's reconstruction",
    "mean": "Mean patch",
    "zero": "Zero",
}
"""What stands in the place of the tokens, in the order in which it is drawn, in words."""

_MEANS = {"patches": "Mean patch", "class": "Mean class token", "all": "Mean tokens"}

MEASURE_LABELS = {
    "accuracy": "Accuracy of the probe",
    "log_loss": "Log loss of the probe",
    "patch_miou": "Mean IoU by patches",
    "pixel_miou": "Mean IoU by pixels",
    "zero_shot_accuracy": "Accuracy, zero shot",
    "zero_shot_log_loss": "Log loss, zero shot",
    "readout_kept": "Share of the list kept",
}
"""Measures in the order in which they are drawn, in words; those of added tasks come after them."""

_FULL = 4  # panels that fill a page


def data(faithfulness: pl.DataFrame) -> pl.DataFrame:
    """Return one row a measure and quantity, measures in the order in which they are drawn."""
    measures = dict.fromkeys([*MEASURE_LABELS, *faithfulness["measure"]])
    return pl.concat(faithfulness.filter(measure=measure) for measure in measures)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: bars of what is kept, and below them the shares that the reconstruction recovers."""
    measures = table["measure"].unique(maintain_order=True).to_list()
    line = settings.font_size / 72
    palette = colours(settings)
    shades = ("#595959", palette[0], "#B3B3B3", "#D9D9D9")
    places = np.arange(len(REPLACEMENT_LABELS))
    with style(settings):
        width = PAGE_WIDTH * max(len(measures), 2) / _FULL + 0.5 * (len(measures) < _FULL)
        figure = Figure(figsize=(width, 12 * line), layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
        for axes, measure in zip(panels, measures, strict=True):
            rows = {row["quantity"]: row for row in table.filter(measure=measure).iter_rows(named=True)}
            bars = [rows[name] for name in REPLACEMENT_LABELS]
            values, low, high = (np.array([bar[key] for bar in bars], float) for key in ("value", "low", "high"))
            errors = np.maximum(np.nan_to_num([values - low, high - values]), 0)
            axes.barh(places, values, color=shades, height=0.7)
            axes.errorbar(values, places, xerr=errors, color="black", linestyle="", elinewidth=0.9)
            recovered = [f"from {base}: {_share(rows[f'recovered_from_{base}'])}" for base in ("zero", "mean")]
            axes.set_xlabel("\n".join(["Recovered", *recovered]), size=settings.font_size * 0.9, loc="left")
            axes.set_title(MEASURE_LABELS.get(measure, measure.replace("_", " ")), loc="left")
            axes.set_xlim(left=0)
            if not measure.endswith("log_loss"):
                axes.set_xlim(right=1)
        labels = REPLACEMENT_LABELS | {"mean": _MEANS[kind_of(table)]}
        panels[0].set_yticks(places, labels.values())
        panels[0].set_ylim(len(places) - 0.5, -0.5)
        for axes in panels[1:]:
            axes.tick_params(left=False)
    return figure


def _share(row: dict[str, float | None]) -> str:
    if row["value"] is None:
        return "no clear loss"
    value, low, high = (f"{100 * (row[key] or 0):.0f}" for key in ("value", "low", "high"))
    return f"{value} % [{low}, {high}]"
