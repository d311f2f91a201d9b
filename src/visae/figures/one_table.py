"""Figures of one table each: from its file to PDF, PNG and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import polars as pl

from visae.config.settings import FigureSettings
from visae.figures.style import save_figure

OfOneTable = Literal["arms", "confusion", "doses", "faithfulness", "probabilities", "score_nulls"]


def draw_table(
    figure: OfOneTable,
    source: Path,
    output: Path | Sequence[Path],
    settings: FigureSettings,
    *,
    task: str | None = None,
) -> None:
    """Write a figure as PDF, PNG and CSV.

    Parameters
    ----------
    figure
        Its module in `visae.figures`.
    source
        The Parquet file of which the module's `data` says what it is.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    task
        What was measured, for `arms` and `doses`.
    """
    module = import_module(f"visae.figures.{figure}")
    table = module.data(pl.read_parquet(source))
    save_figure(module.draw(table, settings, **({} if task is None else {"task": task})), table, output)
