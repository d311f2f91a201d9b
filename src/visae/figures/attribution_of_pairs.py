"""Whether latents look where two pictures differ: shares inside the changed place, and an example of each cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from visae.config.settings import FigureSettings
from visae.figures.gallery import GalleryFigure
from visae.figures.inches import Page
from visae.figures.overlays import PANELS, draw_map
from visae.figures.pictures import Shown, load_indexed
from visae.figures.style import PAGE_WIDTH, colours, plain, save_figure, style
from visae.files import read_json
from visae.vision.card import ModelCard

LABELS = {
    "attribution": "attribution",
    "occlusion": "occlusion",
    "activation": "activation",
    "token": "its token alone",
    "area": "random map",
}
"""Maps whose shares are compared, in words."""

MAPS = ("activation", "attribution", "occlusion", "region")
EXAMPLES = 1
"""Pairs of each cause that are shown."""

_GAP, _SIDE = 0.04, 0.95  # inches


def shares(causes: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return one row a cause and map of attribution_of_pairs.json: cause, n_pairs, map, share, low, high."""
    return pl.DataFrame(
        [
            {"cause": one["cause"], "n_pairs": one["n_pairs"], "map": name, "share": one[name]["value"]}
            | {end: one[name][end] for end in ("low", "high")}
            for one in causes
            for name in LABELS
        ],
        schema={"cause": pl.String, "n_pairs": pl.Int64, "map": pl.String}
        | dict.fromkeys(("share", "low", "high"), pl.Float64),
    )


def data(table: pl.DataFrame, causes: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return the rows of `shares`, then one row a patch of the examples.

    Parameters
    ----------
    table
        attribution_of_pairs.parquet.
    causes
        As attribution_of_pairs.json has them.
    """
    examples = (
        table.group_by("cause", maintain_order=True)
        .head(EXAMPLES)
        .with_columns(patch=pl.int_ranges(pl.col("attribution").list.len()))
        .explode("patch", *MAPS)
        .with_columns(pl.col("activation").fill_nan(None), peak=pl.col("patch") == pl.col("token"))
        .select("cause", "pair", "latent", "image_id", "patch", "peak", *MAPS)
    )
    return pl.concat([shares(causes), examples], how="diagonal_relaxed")


def draw(
    table: pl.DataFrame, settings: FigureSettings, pictures: Mapping[int, Shown], grid: tuple[int, int]
) -> GalleryFigure:
    """Draw the table of `data`.

    Parameters
    ----------
    pictures
        By image_id.
    grid
        Patches down and across.
    """
    line = settings.font_size / 72 * 1.35
    measured = table.filter(pl.col("map").is_not_null())
    examples = table.filter(pl.col("pair").is_not_null()).partition_by("cause", maintain_order=True)
    tall = _SIDE * grid[0] / grid[1]
    chart = 2.2
    height = chart + 1.2 * line + len(examples) * (tall + _GAP)
    with style(settings):
        figure = GalleryFigure(figsize=(PAGE_WIDTH, height))
        page = Page(figure, height)
        _draw_shares(page.axes(0.6, 0.3, PAGE_WIDTH - 2.0, chart - 0.8), measured, settings)
        left = 1.2
        for number, name in enumerate(PANELS):
            page.text(left + number * (_SIDE + _GAP), chart + 0.1 * line, PANELS[name], fontsize="small")
        top = chart + 1.2 * line
        for rows in examples:
            page.text(0, top + 0.1 * line, f"{plain(rows['cause'][0])}\nlatent {rows['latent'][0]}")
            region = (rows["region"].to_numpy() > 0.5).reshape(grid)
            for number, panel in enumerate(PANELS):
                axes = page.axes(left + number * (_SIDE + _GAP), top, _SIDE, tall)
                draw_map(axes, panel, rows, pictures[rows["image_id"][0]], grid, region)
            top += tall + _GAP
    return figure


def _draw_shares(axes: Axes, measured: pl.DataFrame, settings: FigureSettings) -> None:
    """Shares with their intervals, a group a cause, the mean over all pairs last."""
    causes = measured["cause"].unique(maintain_order=True).to_list()
    palette = (*colours(settings)[: len(LABELS) - 1], "#808080")
    for number, (name, label) in enumerate(LABELS.items()):
        rows = measured.filter(map=name)
        known = rows.filter(pl.col("share").is_not_null())
        places = np.array([causes.index(cause) for cause in known["cause"]]) + (number - 2) * 0.14
        errors = [(known["share"] - known["low"]).to_numpy(), (known["high"] - known["share"]).to_numpy()]
        axes.errorbar(
            places, known["share"].to_numpy(), yerr=np.maximum(errors, 0), fmt="o", markersize=3, linewidth=0.9,
            color=palette[number], label=label,
        )  # fmt: skip
    counts = dict(measured.select("cause", "n_pairs").unique().iter_rows())
    axes.set_xticks(range(len(causes)), [f"{plain(cause)}\n{counts[cause]} pairs" for cause in causes])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("Share inside the changed place")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_attribution_of_pairs(
    table: Path,
    summary: Path,
    index_path: Path,
    card_path: Path,
    output: Path | Sequence[Path],
    *,
    settings: FigureSettings,
    layer: int = -1,
) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    table, summary
        attribution_of_pairs.parquet and .json.
    index_path
        Index of the data set.
    card_path
        model.json of the model.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    layer
        Whose latents these are; without it, the last.
    """
    drawn = data(pl.read_parquet(table), read_json(summary)["causes"])
    card = ModelCard.read(card_path)
    shown = load_indexed(drawn["image_id"].drop_nulls(), index_path, card)
    save_figure(draw(drawn, settings, shown, card.layers[layer].grid), drawn, output)
