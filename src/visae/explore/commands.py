"""What `visae features` does: galleries, contact sheets, queries by region, edits, proposals of names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from visae.config.settings import FigureSettings
from visae.errors import DataError
from visae.explore.edit import Place
from visae.explore.features import Features
from visae.explore.naming import class_proposals, crop_proposals, load_namer
from visae.figures.gallery import GalleryFigure
from visae.figures.style import save_figure
from visae.files import atomic_path

_KINDS = (".pdf", ".png", ".csv")


def show(
    features: Path,
    latents: list[int],
    output: Path,
    names: Path | None = None,
    columns: int = 8,
    settings: FigureSettings = FigureSettings(),  # noqa: B008  frozen
) -> None:
    """Draw everything that is kept of a few latents: picture, activation, crop of the peak and value of each exemplar.

    Parameters
    ----------
    features
        Folder results/features/TRAINED_ON/MODEL/layerN/SAE/DATASET.
    latents
        Which to draw.
    output
        Where to; .pdf, .png and .csv are appended.
    names
        CSV file of names; without it, those that the configuration gave.
    columns
        Pictures side by side.
    settings
        Section `figures`.
    """
    found = Features.load(features, names)
    table = found.gallery_table(latents, per_group=columns)
    _save(found.draw(table, columns, ("picture", "overlay", "crop"), settings), table, output)


@dataclass(frozen=True)
class Chosen:
    """Latents of a sheet, as `Features.select` chooses them.

    Attributes
    ----------
    latents
        Which to draw; without it, all in the ranges.
    log10_frequency, log10_mean
        Lowest and highest logarithm of a latent's frequency, and of the mean of its active values.
    by
        Column of the table of latents to sort by, the largest first: max, f1, frequency and others.
    limit
        Latents at most.
    """

    latents: list[int] | None = None
    log10_frequency: list[float] | None = None
    log10_mean: list[float] | None = None
    by: str = "max"
    limit: int = 24


def sheet(
    features: Path,
    output: Path,
    chosen: Chosen = Chosen(),
    names: Path | None = None,
    settings: FigureSettings = FigureSettings(),  # noqa: B008  frozen
) -> None:
    """Draw a contact sheet: for each of many latents a row of the pictures in which it is strongest, with crops.

    Parameters
    ----------
    features
        Folder results/features/TRAINED_ON/MODEL/layerN/SAE/DATASET.
    output
        Where to; .pdf, .png and .csv are appended.
    chosen
        Which latents.
    names
        CSV file of names; without it, those that the configuration gave.
    settings
        Section `figures`; its key exemplars is the number of pictures in a row.
    """
    found = Features.load(features, names)
    alive = found.select(**vars(chosen)).filter(~pl.col("dead"))
    if alive.is_empty():
        raise DataError(f"{features}: no latent that is ever active lies in these ranges; widen them")
    table = found.gallery_table(alive["latent"].to_list(), kinds=["top"], per_group=settings.exemplars)
    _save(found.draw(table, settings.exemplars, ("overlay", "crop"), settings), table, output)


@dataclass(frozen=True)
class Region:
    """What a query is about.

    Attributes
    ----------
    image
        image_id or path of a picture of the data set, or a new file, which goes through the model and the SAE.
    patches
        Patches inside, counted row by row from 0: 3,4,5.
    mask
        Or a picture of the size of the image, not 0 inside; a patch is inside where half of it is.
    class_
        Or a class: of the image, which is of the data set then, or without image of the whole data set.
    min_purity
        Share of a patch that a class has to fill for the patch to count.
    """

    image: str | None = None
    patches: list[int] | None = None
    mask: Path | None = None
    class_: str | None = None
    min_purity: float = 0.9


def query(
    features: Path,
    region: Region = Region(),
    latents: int = 8,
    output: Path | None = None,
    names: Path | None = None,
    device: str = "auto",
    settings: FigureSettings = FigureSettings(),  # noqa: B008  frozen
) -> None:
    """Rank latents by their activation in a region against elsewhere, and draw their exemplars.

    The order is that of the mean over the patches inside minus the mean over those outside, a silent patch counting 0.

    Parameters
    ----------
    features
        Folder results/features/TRAINED_ON/MODEL/layerN/SAE/DATASET.
    region
        What it is about.
    latents
        Latents to print and draw.
    output
        Where to draw to; .pdf, .png and .csv are appended. Without it, the table is printed alone.
    names
        CSV file of names; without it, those that the configuration gave.
    device
        For new pictures: auto, cpu or cuda.
    settings
        Section `figures`.
    """
    asked = Features.load(features, names).query(
        region.image,
        patches=region.patches,
        mask=region.mask,
        class_name=region.class_,
        min_purity=region.min_purity,
        device=device,
    )
    print(_text(asked.table.head(latents)))
    if output is not None:
        table = asked.gallery_table(latents)
        _save(asked.draw(table, settings=settings), table, output)


@dataclass(frozen=True)
class Change:
    """What is done to a picture.

    Attributes
    ----------
    image
        image_id or path of a picture of the data set, or a new file.
    latents
        Which to edit, all at once: 12 or 12,40.
    dose
        What each is set to, as a multiple of its largest value on split train; 0 suppresses.
    task
        classification or segmentation; without it, the first of them that has a head.
    """

    image: str
    latents: list[int]
    dose: float = -2.0
    task: Literal["classification", "segmentation"] | None = None


def edit(
    features: Path,
    change: Change,
    place: Place = Place(),  # noqa: B008  frozen
    output: Path | None = None,
    names: Path | None = None,
    device: str = "auto",
    settings: FigureSettings = FigureSettings(),  # noqa: B008  frozen
) -> None:
    """Edit latents in a picture, and draw the picture, the latents' exemplars and what the heads say before and after.

    The control is a random change of the same length on each edited patch.

    Parameters
    ----------
    features
        Folder results/features/TRAINED_ON/MODEL/layerN/SAE/DATASET; the heads are those of the same data set.
    change
        What is done, to which picture.
    place
        Where.
    output
        Where to draw to; .pdf, .png and .csv are appended. Without it, the table is printed alone.
    names
        CSV file of names; without it, those that the configuration gave.
    device
        auto, cpu or cuda.
    settings
        Section `figures`.
    """
    found = Features.load(features, names).edit(**vars(change), **vars(place), device=device)
    print(_text(found.summary()))
    if output is not None:
        table = found.strip_table()
        _save(found.draw(table, settings), table, output)


def propose_names(
    features: Path,
    output: Path,
    by: str | None = None,
    latents: list[int] | None = None,
    limit: int = 50,
    crops: int = 8,
) -> None:
    """Propose names for latents, as a CSV file to look through and give to the configuration.

    Without `by`, a latent is called like the class that it finds best, where the interval of its held-out
    F1 lies above the mean of latents that are about as often active.

    Parameters
    ----------
    features
        Folder results/features/TRAINED_ON/MODEL/layerN/SAE/DATASET.
    output
        CSV file to write: latent, name, note, and numbers that back the name.
    by
        A function of yours, module:function, that names crops; see docs/features.md.
    latents
        Which to name; without it, all that a class can name, or with `by` the strongest.
    limit
        With `by`, latents at most.
    crops
        With `by`, crops of each latent to show to it.
    """
    found = Features.load(features)
    if by is None:
        table = class_proposals(found, latents)
    else:
        chosen = found.select(latents, limit=limit).filter(~pl.col("dead"))
        table = crop_proposals(found, load_namer(by), chosen["latent"].to_list(), crops)
    with atomic_path(output) as temporary:
        table.write_csv(temporary)
    print(f"{output}: {table.height} names; look through them, then give the file to the configuration")


def _save(figure: GalleryFigure, table: pl.DataFrame, output: Path) -> None:
    """Write figure and table beside each other; a suffix that the user wrote is no part of the name."""
    stem = output.with_suffix("") if output.suffix in _KINDS else output
    save_figure(figure, table, stem)
    print(f"{stem}.pdf, .png, .csv")


def _text(table: pl.DataFrame) -> str:
    with (
        pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, float_precision=3),
        pl.Config(tbl_formatting="MARKDOWN", tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True),
    ):
        return str(table)
