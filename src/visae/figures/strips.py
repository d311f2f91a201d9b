"""Strips: observe a picture, hypothesize what a latent means from its exemplars, experiment by editing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import polars as pl
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.figures.arms import arm_colours
from visae.figures.gallery import GalleryFigure
from visae.figures.inches import Page
from visae.figures.pictures import Shown, draw_exemplar, draw_plain, draw_region
from visae.figures.segmentation_maps import class_colours, coloured
from visae.figures.style import PAGE_WIDTH, plain, style

EXEMPLARS = 2
"""Pictures of a latent on a line; a latent alone has two lines."""

TOP_CLASSES = 4
"""Classes whose probability is shown: the likeliest before or after the edit."""

CONTROLS = {"random_vector": "random change of the same length", "random_latent": "random latent edited"}
"""What an edit is compared with, by arm."""

_BEFORE = "#D0D0D0"
_HEADS = ("Observe", "Hypothesize", "Experiment")
# Inches: widths of the first two columns. Two lines of exemplars are then as high as the maps of the third.
_OBSERVED, _EXEMPLARS = 1.42, 1.46
_GAP, _BETWEEN = 0.04, 0.16  # inches between pictures, and between columns
_COLUMNS = ("strip", "title", "part", "latent", "rank", "image_id", "token", "value", "peak", "class_name")


@dataclass(frozen=True)
class Strip:
    """One experiment on one picture.

    Attributes
    ----------
    title
        What is edited, in words.
    image_id, edited
        The picture, and the tokens that are edited in it: patches from 0, the class token -1.
    latents
        Those that are edited.
    outcome
        before, after and control, one row a class (`class_name`; its probability) or one a patch (`token`; the name
        of the class that is predicted).
    """

    title: str
    image_id: int
    edited: Sequence[int]
    latents: Sequence[int]
    outcome: pl.DataFrame


def title(latents: Sequence[int], names: Mapping[int, str], dose: float, edited: Sequence[int] = ()) -> str:
    """Say which latents are set to what, and where.

    Parameters
    ----------
    names
        Those that people gave to some latents.
    edited
        Tokens; those below 0 are the class token and registers.
    """
    called = [f"{latent} “{names[latent]}”" if latent in names else str(latent) for latent in latents]
    who, largest = ("latent", "its largest value") if len(called) == 1 else ("latents", "their largest values")
    amount = f"{dose:g} × {largest}".replace("-", "−") if dose else "0"
    prefix = "the class token" if min(edited, default=0) == -1 else "the class token and registers"
    places = ["the outlined patches"] * (max(edited, default=0) >= 0) + [prefix] * (min(edited, default=0) < 0)
    return f"{who} {', '.join(called)} set to {amount} on {' and '.join(places)}"


def data(strips: Sequence[Strip], exemplars: pl.DataFrame) -> pl.DataFrame:
    """Return all that is drawn, one row a number.

    Parameters
    ----------
    strips
        In the order in which they are drawn.
    exemplars
        Rows of exemplars.parquet.

    Returns
    -------
    DataFrame
        strip, title, part, and what the part needs: `edited` (image_id, token), `exemplar` (latent, rank, image_id,
        token, value, peak), `probability` (class_name, before, after, control) or `prediction` (token, and the same
        three, which are names of classes).
    """
    parts = []
    for number, strip in enumerate(strips):
        wanted = EXEMPLARS * (2 if len(strip.latents) == 1 else 1)
        lit = (
            pl.DataFrame({"latent": pl.Series(strip.latents, dtype=pl.Int32)})
            .join(
                exemplars.filter((pl.col("kind") == "top") & (pl.col("rank") < wanted)),
                on="latent",
                maintain_order="left_right",
            )
            .select("latent", "rank", "image_id", "tokens", "values", at="token", part=pl.lit("exemplar"))
            .explode("tokens", "values")
            .rename({"tokens": "token", "values": "value"})
            .with_columns(peak=pl.col("token") == pl.col("at"))
            .drop("at")
        )
        edited = pl.DataFrame({"token": pl.Series(strip.edited, dtype=pl.Int16)}).with_columns(
            part=pl.lit("edited"), image_id=pl.lit(strip.image_id, pl.Int32)
        )
        kind = "probability" if "class_name" in strip.outcome.columns else "prediction"
        about = {"strip": pl.lit(number), "title": pl.lit(strip.title)}
        own = (edited, lit, strip.outcome.with_columns(part=pl.lit(kind)))
        parts += [part.with_columns(**about) for part in own]
    table = pl.concat(parts, how="diagonal_relaxed")
    return table.select(*(name for name in _COLUMNS if name in table.columns), "before", "after", "control")


def draw(
    table: pl.DataFrame,
    settings: FigureSettings,
    pictures: Mapping[int, Shown],
    grid: tuple[int, int],
    control: str,
    classes: Sequence[str] = (),
) -> GalleryFigure:
    """Draw the table of `data`.

    Parameters
    ----------
    pictures
        By image_id.
    grid
        Patches down and across.
    control
        What `control` is, in words.
    classes
        Names of all classes that can be predicted, so that each has its colour in all figures.
    """
    line = settings.font_size / 72 * 1.35
    strips = table.partition_by("strip", maintain_order=True)
    in_classes = "class_name" in table.columns
    palette = class_palette(table, settings, classes)
    aspect = grid[0] / grid[1]
    side = (_EXEMPLARS - (EXEMPLARS - 1) * _GAP) / EXEMPLARS
    heights = [max(_OBSERVED * aspect, _lines(rows) * (side * aspect + _GAP) - _GAP) for rows in strips]
    below = (2.6 if in_classes else 1.8 + 1.2 * -(-len(palette) // 6)) * line
    height = sum(heights) + len(strips) * 2.1 * line + 1.5 * line + below
    with style(settings):
        figure = GalleryFigure(figsize=(PAGE_WIDTH, height))
        page = Page(figure, height)
        lefts = (0.0, _OBSERVED + _BETWEEN, _OBSERVED + _EXEMPLARS + 2 * _BETWEEN)
        for left, text in zip(lefts, _HEADS, strict=True):
            page.text(left, 0.15 * line, text, fontweight="bold")
        top = 1.5 * line
        for rows, tall in zip(strips, heights, strict=True):
            page.text(0, top + 0.2 * line, plain(rows["title"][0]))
            top += 1.6 * line
            _draw_observed(page, (lefts[0], top), rows, pictures, grid)
            _draw_exemplars(page, (lefts[1], top), rows, pictures, grid)
            if in_classes:
                _draw_probabilities(page, (lefts[2], top, PAGE_WIDTH - lefts[2], tall), rows, settings)
            else:
                _draw_maps(page, (lefts[2], top), rows, pictures, grid, palette, control)
            top += tall + 0.5 * line
        handles: list = [Patch(color=palette[name], label=plain(name)) for name in palette]
        if in_classes:
            handles = [
                Patch(color=_BEFORE, label="probability before the edit"),
                Patch(color=arm_colours(settings)["automatic"], label="after it"),
                Line2D([], [], color="black", marker="D", markersize=3, linestyle="", label=f"after a {control}"),
            ]
            if table.filter(part="probability")["control"].null_count():
                handles.pop()
        figure.legend(handles=handles, loc="lower right", ncols=3 if in_classes else 6, borderpad=0.2)
    return figure


def class_palette(
    table: pl.DataFrame, settings: FigureSettings, classes: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Colours of the classes that some patch is predicted as, by name; nothing where probabilities are drawn."""
    if "class_name" in table.columns:
        return {}
    predicted = table.filter(part="prediction")
    seen = set(pl.concat([predicted["before"], predicted["after"], predicted["control"]]).drop_nulls())
    numbers = class_colours(range(len(classes)), settings)
    return {name: numbers[place] for place, name in enumerate(classes) if name in seen}


def _lines(rows: pl.DataFrame) -> int:
    """Lines of exemplars."""
    return max(2, rows.filter(part="exemplar")["latent"].n_unique())


def _draw_observed(
    page: Page, place: tuple[float, float], rows: pl.DataFrame, pictures: Mapping[int, Shown], grid: tuple[int, int]
) -> None:
    edited = rows.filter(part="edited")
    axes = page.axes(*place, _OBSERVED, _OBSERVED * grid[0] / grid[1])
    axes.set_frame_on(False)
    draw_plain(axes, pictures[edited["image_id"][0]], grid)
    draw_region(axes, _mask(edited["token"], grid))


def _draw_exemplars(
    page: Page, place: tuple[float, float], rows: pl.DataFrame, pictures: Mapping[int, Shown], grid: tuple[int, int]
) -> None:
    """Draw a latent's strongest pictures, on two lines where it is the only one, else on one each."""
    left, top = place
    width = (_EXEMPLARS - (EXEMPLARS - 1) * _GAP) / EXEMPLARS
    height = width * grid[0] / grid[1]
    for number, latent in enumerate(rows.filter(part="exemplar").partition_by("latent", maintain_order=True)):
        strongest = latent["value"].max()
        for exemplar in latent.partition_by("rank", maintain_order=True):
            down, across = divmod(exemplar["rank"][0], EXEMPLARS)
            at = (left + across * (width + _GAP), top + (number + down) * (height + _GAP))
            axes = page.axes(*at, width, height)
            axes.set_frame_on(False)
            values = dict(zip(exemplar["token"], exemplar["value"].to_numpy() / strongest, strict=True))
            peak = exemplar.filter("peak")["token"].to_list()
            draw_exemplar(axes, pictures[exemplar["image_id"][0]], values, peak[0] if peak else None, grid)


def _draw_probabilities(
    page: Page, place: tuple[float, float, float, float], rows: pl.DataFrame, settings: FigureSettings
) -> None:
    """Draw two bars a class, before and after, with the control as a mark, and both numbers at the side."""
    left, top, width, height = place
    found = rows.filter(part="probability")
    names, numbers = 0.85, 0.78  # inches beside the bars
    axes = page.axes(left + names, top, width - names - numbers, height - 0.2)
    places = np.arange(len(found))
    axes.barh(places - 0.19, found["before"], 0.36, color=_BEFORE)
    axes.barh(places + 0.19, found["after"], 0.36, color=arm_colours(settings)["automatic"])
    axes.plot(found["control"], places + 0.19, "D", color="black", markersize=3, clip_on=False, zorder=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks(places, [plain(_shortened(name)) for name in found["class_name"]])
    axes.tick_params(axis="y", length=0)
    for at, (before, after) in enumerate(found.select("before", "after").iter_rows()):
        text = f"{before:.2f} → {after:.2f}"
        axes.text(1.04, at, text, transform=axes.get_yaxis_transform(), va="center", fontsize=settings.font_size * 0.9)


def _draw_maps(
    page: Page,
    place: tuple[float, float],
    rows: pl.DataFrame,
    pictures: Mapping[int, Shown],
    grid: tuple[int, int],
    palette: Mapping[str, tuple[float, float, float]],
    control: str,
) -> None:
    """Draw what is predicted before, after, and after the control, with the edited patches outlined."""
    left, top = place
    width = (PAGE_WIDTH - left - 2 * _GAP) / 3
    edited, found = rows.filter(part="edited"), rows.filter(part="prediction").sort("token")
    numbers = {name: number for number, name in enumerate(palette)}
    colours = dict(enumerate(palette.values()))
    picture = pictures[edited["image_id"][0]].seen
    for number, (column, label) in enumerate((("before", "before"), ("after", "after"), ("control", control))):
        if found[column].null_count():
            continue
        axes = page.axes(left + number * (width + _GAP), top, width, width * grid[0] / grid[1])
        axes.set_frame_on(False)
        ids = np.array([numbers[name] for name in found[column]]).reshape(grid)
        shown = coloured(picture, ids, colours)
        draw_plain(axes, Shown(shown, shown), grid)
        draw_region(axes, _mask(edited["token"], grid), "black")
        axes.set_xlabel(fill(label, 22), labelpad=2)


def _mask(tokens: pl.Series, grid: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(grid[0] * grid[1], dtype=bool)
    mask[tokens.filter(tokens >= 0).to_numpy()] = True
    return mask.reshape(grid)


def _shortened(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
