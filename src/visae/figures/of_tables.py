"""Figures of one table each, or of one a dictionary: from files to PDF, PNG and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import polars as pl

from visae.config.settings import FigureSettings
from visae.figures.style import save_figure

OfTables = Literal[
    "arms",
    "audit",
    "cause_edits",
    "cause_latents",
    "confusion",
    "doses",
    "faithfulness",
    "gain",
    "ground_truth",
    "probabilities",
    "score_nulls",
    "selective",
    "sets",
    "training",
]


def draw_tables(
    figure: OfTables,
    source: Path | Mapping[str, Path],
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
        The Parquet file of which the module's `data` says what it is, or such a file by the name of each dictionary.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    task
        What was measured, for `arms` and `doses`.
    """
    module = import_module(f"visae.figures.{figure}")
    if isinstance(source, Path):
        table = module.data(pl.read_parquet(source))
    else:
        table = module.data({name: pl.read_parquet(path) for name, path in source.items()})
    save_figure(module.draw(table, settings, **({} if task is None else {"task": task})), table, output)
