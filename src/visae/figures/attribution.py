"""Where latents look: their strongest pictures under what is active, what is attributed and what covering takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from visae.config.settings import FigureSettings
from visae.errors import DataError
from visae.features.names import described, read_names
from visae.figures.gallery import GalleryFigure, title
from visae.figures.inches import Page
from visae.figures.overlays import PANELS, draw_map
from visae.figures.pictures import Shown, load_indexed
from visae.figures.style import PAGE_WIDTH, save_figure, style
from visae.vision.card import ModelCard

PICTURES = 2
"""Pictures of a latent, side by side."""

MAPS = ("activation", "attribution", "occlusion")
_GAP, _BETWEEN = 0.04, 0.14  # inches between panels, and between pictures


def data(table: pl.DataFrame, about: pl.DataFrame) -> pl.DataFrame:
    """Return one row a patch.

    Parameters
    ----------
    table
        attribution.parquet.
    about
        latent, name, class_name, f1, frequency.

    Returns
    -------
    DataFrame
        latent, name, class_name, f1, frequency, rank, image_id, patch, peak (whether the latent is strongest there),
        activation, attribution, occlusion.
    """
    shown = table.filter(pl.col("rank") < PICTURES).with_columns(patch=pl.int_ranges(pl.col("attribution").list.len()))
    known = about.select("latent", "name", "class_name", "f1", "frequency", *{"tokens"}.intersection(about.columns))
    return (
        shown.join(known.rename({"tokens": "of"}, strict=False), on="latent", how="left", maintain_order="left")
        .explode("patch", *MAPS)
        .with_columns(pl.col("activation").fill_nan(None), peak=pl.col("patch") == pl.col("token"))
        .select(*known.rename({"tokens": "of"}, strict=False).columns, "rank", "image_id", "patch", "peak", *MAPS)
    )


def draw(
    table: pl.DataFrame, settings: FigureSettings, pictures: Mapping[int, Shown], grid: tuple[int, int]
) -> GalleryFigure:
    """Draw the table of `data`: a line a latent, and of each picture the panels of PANELS.

    Parameters
    ----------
    pictures
        By image_id.
    grid
        Patches down and across.
    """
    line = settings.font_size / 72 * 1.35
    blocks = table.partition_by("latent", maintain_order=True)
    n_panels = PICTURES * len(PANELS)
    side = (PAGE_WIDTH - (PICTURES - 1) * _BETWEEN - (n_panels - PICTURES) * _GAP) / n_panels
    tall = side * grid[0] / grid[1]
    height = 1.3 * line + len(blocks) * (tall + 1.8 * line)
    with style(settings):
        figure = GalleryFigure(figsize=(PAGE_WIDTH, height))
        page = Page(figure, height)
        for number, name in enumerate(PANELS):
            page.text(number * (side + _GAP), 0.1 * line, PANELS[name].replace(" if ", "\nif "), fontsize="small")
        top = 1.6 * line
        for rows in blocks:
            page.text(0, top + 0.2 * line, title(rows))
            for place, cell in enumerate(rows.partition_by("rank", maintain_order=True)):
                left = place * (len(PANELS) * (side + _GAP) - _GAP + _BETWEEN)
                for number, panel in enumerate(PANELS):
                    axes = page.axes(left + number * (side + _GAP), top + 1.4 * line, side, tall)
                    draw_map(axes, panel, cell, pictures[cell["image_id"][0]], grid)
            top += tall + 1.8 * line
    return figure


@dataclass(frozen=True, kw_only=True)
class OverlayFiles:
    """What overlays are drawn from.

    Attributes
    ----------
    table
        attribution.parquet.
    stats, scores
        Parquet files of the features; scores where there are any.
    index_path
        Index of the data set.
    card_path
        model.json of the model.
    names
        CSV file of names, if any.
    """

    table: Path
    stats: Path
    index_path: Path
    card_path: Path
    scores: Path | None = None
    names: Path | None = None


def draw_attribution(
    files: OverlayFiles, output: Path | Sequence[Path], *, settings: FigureSettings, layer: int = -1
) -> None:
    """Write the overlays as PDF, PNG and CSV.

    Parameters
    ----------
    files
        What they are drawn from.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    layer
        Whose latents these are; without it, the last.
    """
    found = pl.read_parquet(files.table)
    if found.is_empty():
        raise DataError(f"{files.table}: nothing to show; make it again with: snakemake --force {files.table}")
    scores = None if files.scores is None else pl.read_parquet(files.scores)
    names = None if files.names is None else read_names(files.names)
    table = data(found, described(pl.read_parquet(files.stats), scores, names))
    card = ModelCard.read(files.card_path)
    pictures = load_indexed(table["image_id"], files.index_path, card)
    save_figure(draw(table, settings, pictures, card.layers[layer].grid), table, output)
