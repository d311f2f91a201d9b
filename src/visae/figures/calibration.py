"""Whether a probe is right as often as it says: accuracy against confidence, and how often it is how sure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import COLUMN_WIDTH, colours, save_figure, style
from visae.files import read_json


def data(reliability: pl.DataFrame) -> pl.DataFrame:
    """Return one row a bin of confidence: that of reliability.parquet, with share, of all pictures."""
    return reliability.with_columns((pl.col("n_images") / pl.col("n_images").sum()).alias("share"))


def draw(table: pl.DataFrame, metrics: dict[str, Any], settings: FigureSettings) -> Figure:
    """Draw the table of `data`: accuracy of each bin with its interval above, shares of pictures below.

    Parameters
    ----------
    metrics
        metrics.json of the probe, for the calibration error.
    """
    with style(settings):
        figure = Figure(figsize=(COLUMN_WIDTH, COLUMN_WIDTH * 1.25), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 1], [0, 1], color="#A0A0A0", linewidth=0.8, linestyle="--")
        values = {name: table[name].to_numpy() for name in ("accuracy", "accuracy_low", "accuracy_high")}
        errors = [values["accuracy"] - values["accuracy_low"], values["accuracy_high"] - values["accuracy"]]
        above.errorbar(
            table["confidence"].to_numpy(),
            values["accuracy"],
            yerr=np.maximum(np.nan_to_num(errors), 0),
            color=colours(settings)[0],
            marker="o",
            markersize=3.5,
            linestyle="",
            elinewidth=0.9,
        )
        found = [metrics[f"rms_calibration_error{end}"] for end in ("", "_low", "_high")]
        shown = "not measurable" if None in found else "{:.3f} [{:.3f}, {:.3f}]".format(*found)
        above.set_title(f"RMS calibration error {shown}", loc="left")
        above.set_ylabel("Accuracy")
        above.set_ylim(-0.03, 1.03)
        widths = (table["upper"] - table["lower"]).to_numpy()
        below.bar(table["lower"].to_numpy(), table["share"].to_numpy(), widths, align="edge", color="#8C8C8C")
        below.set_ylabel("Share of\npictures")
        below.set_xlabel("Probability that the probe gives to its answer")
        below.set_xlim(0, 1)
    return figure


def draw_calibration(reliability: Path, metrics: Path, output: Path | Sequence[Path], settings: FigureSettings) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    reliability, metrics
        reliability.parquet and metrics.json of the probe.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table = data(pl.read_parquet(reliability))
    save_figure(draw(table, read_json(metrics), settings), table, output)
