"""Galleries: each latent a block of pictures, grouped by how they were found, lit where it is active."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.figures.pictures import Shown, draw_crop, draw_exemplar, draw_plain, draw_region
from visae.figures.style import PAGE_WIDTH, style
from visae.figures.units import ACTIVE_ON, kind_of

View = Literal["picture", "overlay", "crop"]

QUERY = "query"
"""Kind of the picture that was asked about: it stands before the exemplars."""

_ORDER = (QUERY, "top", "bin", "random")
_GAP = 0.04  # inches between pictures
_BETWEEN = 0.1  # inches between groups on one line
_HEADINGS = {QUERY: "asked about", "top": "strongest", "random": "random active\n{}"}


class GalleryFigure(Figure):
    """A figure that notebooks show, whatever backend they use."""

    def png(self) -> bytes:
        """Return the figure as a PNG file."""
        buffer = io.BytesIO()
        FigureCanvasAgg(self).print_png(buffer)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


@dataclass(frozen=True)
class _Group:
    """Pictures found in one way."""

    heading: str
    cells: Sequence[pl.DataFrame]


def data(exemplars: pl.DataFrame, latents: Sequence[int], described: pl.DataFrame) -> pl.DataFrame:
    """Return one row a lit token, latents in the order in which they are given.

    Parameters
    ----------
    exemplars
        What to show of each latent: rows of exemplars.parquet.
    latents
        Latents to show.
    described
        latent, name, class_name, f1, frequency; and `tokens`, where these are other than patches.

    Returns
    -------
    DataFrame
        row (which block), latent, name, class_name, f1, frequency, kind, bin, low, high, rank, image_id, token,
        value, peak (whether it is the token that the exemplar stands for); and `of`, the kind of tokens that latents
        are of, where that is not patches.
    """
    of = ["of"] if "tokens" in described.columns else []
    about = described.rename({"tokens": "of"}, strict=False)
    rows = pl.DataFrame({"latent": pl.Series(latents, dtype=pl.Int32), "row": range(len(latents))})
    order = pl.col("kind").cast(pl.Enum(_ORDER))
    return (
        rows.join(exemplars, on="latent")
        .join(about.select("latent", "name", "class_name", "f1", "frequency", *of), on="latent", how="left")
        .rename({"token": "peak_token"})
        .drop("value")
        .explode("tokens", "values")
        .rename({"tokens": "token", "values": "value"})
        .with_columns((pl.col("token") == pl.col("peak_token")).alias("peak"))
        .sort("row", order, "bin", "rank", "token", descending=[False, False, True, False, False])
        .select(
            *("row", "latent", "name", "class_name", "f1", "frequency", "kind", "bin", "low", "high"),
            *("rank", "image_id", "token", "value", "peak", *of),
        )
    )


def draw(
    table: pl.DataFrame,
    settings: FigureSettings,
    pictures: Mapping[int, Shown],
    grid: tuple[int, int],
    *,
    columns: int,
    views: Sequence[View] = ("overlay",),
    regions: Mapping[int, NDArray[np.bool_]] | None = None,
) -> GalleryFigure:
    """Draw the gallery.

    Parameters
    ----------
    table
        From `data`.
    settings
        Section `figures`.
    pictures
        By image_id.
    grid
        Patches down and across.
    columns
        Pictures side by side. A group that does not fit on what is left of a line begins the next.
    views
        What is drawn of each picture, one below the other: `picture` as the model saw it, `overlay` lit where the
        latent is active, `crop` the surroundings of the peak.
    regions
        Patches to outline in some pictures, bool (rows, columns) by image_id.
    """
    line = settings.font_size / 72 * 1.5
    blocks = [
        (title(rows), _lines(_groups(rows, table), columns), float(rows["value"].to_numpy().max()))
        for rows in table.partition_by("row", maintain_order=True)
    ]
    headed = table.select("kind", "bin").unique().height > 1
    most_groups = max((len(groups) for _, lines, _ in blocks for groups in lines), default=1)
    side = (PAGE_WIDTH - _GAP * (columns - most_groups) - _BETWEEN * (most_groups - 1)) / columns
    tall = side * grid[0] / grid[1]
    texts = max(
        (group.heading.count("\n") + 1 for _, lines, _ in blocks for groups in lines for group in groups), default=1
    )
    heading = (0.3 + 0.75 * texts) * line if headed else 0.0
    line_height = heading + len(views) * (tall + _GAP) + 1.3 * line
    height = sum(1.2 * line + line_height * len(lines) for _, lines, _ in blocks)
    with style(settings):
        figure = GalleryFigure(figsize=(PAGE_WIDTH, height))
        top = height
        for heading_of_block, lines, strongest in blocks:
            figure.text(0, (top - 0.2 * line) / height, heading_of_block, va="top", fontweight="bold")
            top -= 1.2 * line
            for groups in lines:
                left = 0.0
                for group in groups:
                    width = len(group.cells) * (side + _GAP) - _GAP
                    if headed:
                        _draw_heading(figure, group.heading, (left, top - heading, width), height, settings)
                    for place, cell in enumerate(group.cells):
                        for number, view in enumerate(views):
                            x, y = left + place * (side + _GAP), top - heading - number * (tall + _GAP) - tall
                            box = (x / PAGE_WIDTH, y / height, side / PAGE_WIDTH, tall / height)
                            region = (regions or {}).get(cell["image_id"][0])
                            _draw_cell(figure, box, view, cell, pictures, grid, strongest, region)
                        label_size = settings.font_size * (0.85 if headed else 1)
                        figure.axes[-1].set_xlabel(_value(cell), labelpad=1.5, fontsize=label_size)
                    left += width + _BETWEEN
                top -= line_height
    return figure


def _groups(rows: pl.DataFrame, table: pl.DataFrame) -> list[_Group]:
    """Cut a latent's rows into groups of pictures."""
    n_bins = 1 + (table["bin"].cast(pl.Int64).max() or 0)  # type: ignore[operator]
    groups = []
    for group in rows.partition_by("kind", "bin", maintain_order=True):
        kind, number, low, high = group.select("kind", "bin", "low", "high").row(0)
        if kind in _HEADINGS:
            heading = _HEADINGS[kind].format(ACTIVE_ON[kind_of(rows, "of")])
        else:
            heading = f"bin {number + 1} of {n_bins}\n{_short(low)} to {_short(high)}"
        groups.append(_Group(heading, group.partition_by("rank", maintain_order=True)))
    return groups


def _lines(groups: Sequence[_Group], columns: int) -> list[list[_Group]]:
    """Break groups into lines of as many pictures as fit."""
    lines: list[list[_Group]] = [[]]
    free = columns
    for group in groups:
        if len(group.cells) > free < columns:
            lines.append([])
            free = columns
        for start in range(0, len(group.cells), columns):
            if start:
                lines.append([])
                free = columns
            part = group.cells[start : start + columns]
            lines[-1].append(_Group("" if start else group.heading, part))
            free -= len(part)
    return lines


def _draw_heading(
    figure: Figure, text: str, place: tuple[float, float, float], height: float, settings: FigureSettings
) -> None:
    """Write a group's heading over a rule that spans its pictures; `place` is left, bottom and width in inches."""
    left, bottom, width = place
    y = (bottom + 0.05) / height
    figure.text(left / PAGE_WIDTH, y + 0.02 / height, text, va="bottom", fontsize=settings.font_size * 0.85)
    figure.add_artist(Line2D([left / PAGE_WIDTH, (left + width) / PAGE_WIDTH], [y, y], linewidth=0.5, color="#808080"))


def _draw_cell(
    figure: Figure,
    box: tuple[float, float, float, float],
    view: View,
    patches: pl.DataFrame,
    pictures: Mapping[int, Shown],
    grid: tuple[int, int],
    strongest: float,
    region: NDArray[np.bool_] | None,
) -> None:
    axes = figure.add_axes(box, frameon=False)
    picture = pictures[patches["image_id"][0]]
    peak = patches.filter("peak")["token"].to_list()
    if view == "picture":
        draw_plain(axes, picture, grid)
    elif view == "crop" and peak:
        draw_crop(axes, picture, peak[0], grid)
    else:
        values = zip(patches["token"], patches["value"].to_numpy() / strongest, strict=True)
        draw_exemplar(axes, picture, dict(values), peak[0] if peak else None, grid)
    if region is not None and view != "crop":
        draw_region(axes, region)


def _value(patches: pl.DataFrame) -> str:
    """Value of the token that the exemplar stands for."""
    return _short(patches.filter("peak")["value"].item())


def _short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def title(row: pl.DataFrame) -> str:
    """Say which latent a block is of: latent, name, class_name, f1 and frequency of its first row."""
    latent, name, class_name, f1, frequency = row.select("latent", "name", "class_name", "f1", "frequency").row(0)
    parts = [f"Latent {latent}"]
    if name is not None:
        parts.append(f"“{name}”")
    if class_name is not None:
        parts.append(f"{class_name}, held-out F1 {f1:.2f}")
    parts.append(f"active on {100 * frequency:.2g} % of {ACTIVE_ON[kind_of(row, 'of')]}")
    # Names are given by people: a dollar sign in one is not a formula.
    return "   ".join(parts).replace("$", r"\$")
