"""A picture of what a few latents stand for, for the model card."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from visae.config.settings import FigureSettings
from visae.errors import DataError
from visae.explore.features import Features
from visae.figures.exemplars import chosen_latents
from visae.figures.gallery import GalleryFigure

# As many as are read on a page; fewer dots than in print keep it below the size of the text around it.
_SETTINGS = FigureSettings(latents=6, exemplars=6, dpi=130)


def drawn_exemplars(folder: Path) -> GalleryFigure:
    """Draw the strongest pictures of a few latents: of each class the best, else strong ones of moderate frequency.

    Parameters
    ----------
    folder
        Features of the SAE, results/features/TRAINED_ON/MODEL/layerN/SAE/DATASET.

    Raises
    ------
    DataError
        If there are none, their pictures are not known, or no latent is ever active.
    """
    features = Features.load(folder)
    exemplars = pl.read_parquet(features.files.exemplars)
    stats = pl.read_parquet(features.files.statistics)
    latents = chosen_latents(exemplars, stats, features.scores, _SETTINGS)
    if not latents:
        raise DataError(f"{features.files.exemplars}: no latent to show: all are dead; train the SAE for longer")
    table = features.gallery_table(latents, kinds=["top"], per_group=_SETTINGS.exemplars)
    return features.draw(table, _SETTINGS.exemplars, ("overlay",), _SETTINGS)
