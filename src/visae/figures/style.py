"""The one style of all figures, and how they are saved."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl
from cycler import cycler
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.files import atomic_path

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of each font table of each PDF

PAGE_WIDTH = 6.75
"""Inches: the text width of a two-column paper."""

COLUMN_WIDTH = 3.25
"""Inches: one column of it."""

_PALETTES = {
    # Okabe and Ito 2008, the light yellow left out: it does not show on white.
    "okabe-ito": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    "grey": ("#000000", "#595959", "#8C8C8C", "#B3B3B3", "#404040", "#737373", "#A0A0A0"),
}
# Files hold no dates. Compressing a PNG as zlib does by itself takes twice as long, for a twentieth less.
_OF_KIND: dict[str, dict[str, Any]] = {
    "pdf": {"metadata": {"CreationDate": None}},
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}},
}
# Classes laid over a picture are many and side by side: hues further apart than lines need.
_AREAS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#A6D854"),
    *("#7A4E9F", "#8C510A", "#F0E442", "#B2182B", "#5AB4AC", "#BFBFBF"),
)


def area_colours(settings: FigureSettings) -> tuple[str, ...]:
    """Return the colours of classes laid over pictures."""
    return _PALETTES["grey"] if settings.palette == "grey" else _AREAS


def colours(settings: FigureSettings) -> tuple[str, ...]:
    """Return the colours of lines and marks, in the order in which they are to be used."""
    return _PALETTES[settings.palette]


@contextmanager
def style(settings: FigureSettings) -> Iterator[None]:
    """Make figures drawn inside look alike; wrap whatever creates a Figure or its artists."""
    with mpl.rc_context(
        {
            "font.size": settings.font_size,
            "axes.titlesize": settings.font_size,
            "axes.labelsize": settings.font_size,
            "xtick.labelsize": settings.font_size * 0.9,
            "ytick.labelsize": settings.font_size * 0.9,
            "legend.fontsize": settings.font_size * 0.9,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "axes.prop_cycle": cycler(color=colours(settings)),
            "lines.linewidth": 1.2,
            "figure.dpi": settings.dpi,
            "savefig.dpi": "figure",
        }
    ):
        yield


def plain(text: str) -> str:
    """Text in which a dollar sign is no formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, table: pl.DataFrame, output: Path | Sequence[Path]) -> None:
    """Write a figure as PDF and PNG and its numbers as CSV; the same figure gives the same bytes.

    Parameters
    ----------
    figure
        What to save.
    table
        What it shows; no nested columns.
    output
        The path without its suffix, or the paths of the PDF, the PNG and the CSV in any order.
    """
    paths = (
        [output.with_name(f"{output.name}.{kind}") for kind in ("pdf", "png", "csv")]
        if isinstance(output, Path)
        else [Path(path) for path in output]
    )
    FigureCanvasAgg(figure)
    # Once for both files: it takes as long as drawing.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with atomic_path(path) as temporary:
            if kind == "csv":
                table.write_csv(temporary)
                continue
            # Fonts as TrueType: text in the PDF can then be searched and edited.
            with mpl.rc_context({"pdf.fonttype": 42}):
                figure.savefig(temporary, format=kind, **_OF_KIND[kind])
