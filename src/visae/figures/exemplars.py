"""Sheet of exemplars: for each latent the pictures in which it is strongest, lit where it is active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from visae.config.settings import FigureSettings
from visae.errors import DataError
from visae.features.names import described, read_names
from visae.features.shown import chosen_latents
from visae.figures import gallery
from visae.figures.pictures import load_indexed
from visae.figures.style import save_figure
from visae.vision.card import ModelCard

PER_GROUP = 2
"""Pictures of each bin, and of the strongest and random ones beside them, on a sheet of the whole range."""


def data(
    exemplars: pl.DataFrame,
    stats: pl.DataFrame,
    scores: pl.DataFrame | None,
    settings: FigureSettings,
    names: pl.DataFrame | None = None,
    *,
    whole_range: bool = False,
) -> pl.DataFrame:
    """Return the table of `gallery.data` for the latents of the sheet.

    class_name and f1 are those of the class that a latent finds best; null without scores.

    Parameters
    ----------
    exemplars, stats, scores, names
        Tables of the features.
    settings
        Section `figures`.
    whole_range
        Show a few of each kind and bin instead of the strongest alone.
    """
    if whole_range:
        shown = exemplars.filter(pl.col("rank") < PER_GROUP)
    else:
        shown = exemplars.filter((pl.col("kind") == "top") & (pl.col("rank") < settings.exemplars))
    latents = chosen_latents(exemplars, stats, scores, settings)
    return gallery.data(shown, latents, described(stats, scores, names))


@dataclass(frozen=True, kw_only=True)
class SheetFiles:
    """What a sheet is drawn from.

    Attributes
    ----------
    exemplars, stats, scores
        Parquet files of the features; without scores, latents are chosen by strength alone.
    index_path
        Index of the data set that they describe.
    card_path
        model.json of the model that saw it.
    names
        CSV file of names, if any.
    """

    exemplars: Path
    stats: Path
    index_path: Path
    card_path: Path
    scores: Path | None = None
    names: Path | None = None


def draw_exemplars(
    files: SheetFiles,
    output: Path | Sequence[Path],
    *,
    settings: FigureSettings,
    layer: int = -1,
    whole_range: bool = False,
) -> None:
    """Write the sheet as PDF, PNG and CSV.

    Parameters
    ----------
    files
        What it is drawn from.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    layer
        Whose latents these are; without it, the last.
    whole_range
        Show a few of each kind and bin instead of the strongest alone.
    """
    found = pl.read_parquet(files.exemplars)
    table = data(
        found,
        pl.read_parquet(files.stats),
        None if files.scores is None else pl.read_parquet(files.scores),
        settings,
        None if files.names is None else read_names(files.names),
        whole_range=whole_range,
    )
    if table.is_empty():
        raise DataError(f"{files.exemplars}: no latent to show: all are dead; train the SAE for longer")
    card = ModelCard.read(files.card_path)
    # Bins are the same for all latents, so that the sheet has as many columns as its fullest latent has pictures.
    pictures = table.unique(["row", "kind", "bin", "rank"]).group_by("row").len()["len"]
    columns = max(pictures) if whole_range else settings.exemplars
    shown = load_indexed(table["image_id"], files.index_path, card)
    save_figure(gallery.draw(table, settings, shown, card.layers[layer].grid, columns=columns), table, output)
