"""Sheet of exemplars: for each latent the pictures in which it is strongest, lit where it is active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.data.images import fitted, open_image
from visae.data.index import read_index
from visae.errors import DataError
from visae.figures.style import PAGE_WIDTH, save_figure, style
from visae.vision.model import ModelCard

MODERATE_FREQUENCY = (1e-3, 3e-2)
"""Latents without a class should have a frequency in this range: neither accidents nor dense ones."""

_CONTRAST = 0.4  # of the grey picture left where the latent is silent, faded towards white paper
_FAINTEST = 0.35  # opacity of colour on a patch that is only just active
_PEAK_COLOUR = "#0072B2"  # Okabe and Ito's blue: shows on faded grey and on the tint
_TINT = (255, 170, 0)  # laid over lit patches: without it, a lit road looks like a silent one
_TINT_SHARE = 0.2  # of the tint on the most active patch
_GAP = 0.04  # inches between pictures


def chosen_latents(
    exemplars: pl.DataFrame, stats: pl.DataFrame, scores: pl.DataFrame | None, n_latents: int
) -> list[int]:
    """Return the best latent of each class by held-out F1, then the strongest of those of moderate frequency.

    A latent that is best for two classes is shown once. Latents without exemplars are left out.
    """
    shown = set(exemplars["latent"].unique())
    of_classes: list[int] = [] if scores is None else _best(scores)["latent"].to_list()
    strongest = (
        exemplars.filter(pl.col("kind") == "top")
        .group_by("latent")
        .agg(pl.col("value").cast(pl.Float64).mean().alias("strength"))
        .join(stats.select("latent", "frequency"), on="latent")
        .sort("strength", "latent", descending=[True, False])
    )
    moderate = strongest.filter(pl.col("frequency").is_between(*MODERATE_FREQUENCY))
    order = dict.fromkeys(of_classes + moderate["latent"].to_list())
    # Of a poor SAE there may be only dense ones: they are shown rather than nothing.
    return [latent for latent in order or strongest["latent"] if latent in shown][:n_latents]


def data(
    exemplars: pl.DataFrame, stats: pl.DataFrame, scores: pl.DataFrame | None, settings: FigureSettings
) -> pl.DataFrame:
    """Return one row a lit patch: row, latent, class_name, f1, frequency, rank, image_id, token, value, peak.

    class_name and f1 are those of the class that the latent finds best; null without scores.
    """
    latents = chosen_latents(exemplars, stats, scores, settings.latents)
    rows = pl.DataFrame({"latent": pl.Series(latents, dtype=pl.Int32), "row": range(len(latents))})
    best = (
        pl.DataFrame(schema={"latent": pl.Int32, "class_name": pl.String, "f1": pl.Float64})
        if scores is None
        else _best(scores).select("latent", "class_name", "f1").unique("latent", keep="first", maintain_order=True)
    )
    return (
        rows.join(exemplars.filter((pl.col("kind") == "top") & (pl.col("rank") < settings.exemplars)), on="latent")
        .join(best, on="latent", how="left")
        .join(stats.select("latent", "frequency"), on="latent")
        .rename({"token": "peak_token"})
        .drop("value")
        .explode("tokens", "values")
        .rename({"tokens": "token", "values": "value"})
        .with_columns((pl.col("token") == pl.col("peak_token")).alias("peak"))
        .sort("row", "rank", "token")
        .select("row", "latent", "class_name", "f1", "frequency", "rank", "image_id", "token", "value", "peak")
    )


def draw(
    table: pl.DataFrame,
    settings: FigureSettings,
    pictures: Mapping[int, NDArray[np.uint8]],
    grid: tuple[int, int],
) -> Figure:
    """Draw the sheet.

    Parameters
    ----------
    table
        From `data`.
    settings
        Section `figures`.
    pictures
        uint8 (size, size, 3) by image_id, as the model saw them.
    grid
        Patches down and across.
    """
    line = settings.font_size / 72 * 1.5
    side = (PAGE_WIDTH - _GAP * (settings.exemplars - 1)) / settings.exemplars
    row_height = side + 2.6 * line
    rows = table.partition_by("row", maintain_order=True)
    height = max(len(rows), 1) * row_height
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, height))
        for number, row in enumerate(rows):
            top = height - number * row_height
            figure.text(0, (top - 0.2 * line) / height, _title(row), va="top", fontweight="bold")
            strongest = float(row["value"].to_numpy().max())
            for place, patches in enumerate(row.partition_by("rank", maintain_order=True)):
                box = (place * (side + _GAP), top - 1.2 * line - side, side, side)
                axes = figure.add_axes(
                    (box[0] / PAGE_WIDTH, box[1] / height, side / PAGE_WIDTH, side / height), frameon=False
                )
                _draw_picture(axes, pictures[patches["image_id"][0]], patches, grid, strongest)
    return figure


def lit(picture: NDArray[np.uint8], activation: NDArray[np.float64], contrast: float = _CONTRAST) -> NDArray[np.uint8]:
    """Return the picture in colour and tinted where active, faded grey where not, uint8 (height, width, 3).

    Parameters
    ----------
    picture
        uint8 (height, width, 3).
    activation
        (rows, columns) of patches, 0 to 1.
    contrast
        What is left of it on a silent patch.
    """
    height, width = picture.shape[:2]
    down = np.arange(height) * activation.shape[0] // height
    across = np.arange(width) * activation.shape[1] // width
    opacity = np.where(activation > 0, _FAINTEST + (1 - _FAINTEST) * np.clip(activation, 0, 1), 0)
    opacity = opacity[down[:, None], across, None]
    grey = 255 - contrast * (255 - (picture @ np.array([0.299, 0.587, 0.114]))[..., None])
    coloured = picture + _TINT_SHARE * opacity * (np.array(_TINT) - picture.astype(np.float64))
    return np.rint(opacity * coloured + (1 - opacity) * grey).astype(np.uint8)


def draw_exemplars(
    exemplars: Path,
    stats: Path,
    index_path: Path,
    card_path: Path,
    output: Path | Sequence[Path],
    *,
    settings: FigureSettings,
    scores: Path | None = None,
    layer: int = -1,
) -> None:
    """Write the sheet as PDF, PNG and CSV.

    Parameters
    ----------
    exemplars, stats, scores
        Parquet files of the features; without scores, latents are chosen by strength alone.
    index_path
        Index of the data set that they describe.
    card_path
        model.json of the model that saw it.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    layer
        Whose latents these are; without it, the last.
    """
    table = data(
        pl.read_parquet(exemplars),
        pl.read_parquet(stats),
        None if scores is None else pl.read_parquet(scores),
        settings,
    )
    if table.is_empty():
        raise DataError(f"{exemplars}: no latent to show: all are dead; train the SAE for longer")
    card = ModelCard.read(card_path)
    shown = read_index(index_path).filter(pl.col("image_id").is_in(table["image_id"].unique().to_list()))
    pictures = {
        image_id: np.asarray(fitted(open_image(path), card.image_size, card.fit, card.interpolation))
        for image_id, path in shown.select("image_id", "path").iter_rows()
    }
    save_figure(draw(table, settings, pictures, card.layers[layer].grid), table, output)


def _best(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the row of each class's best latent that could be measured, the best F1 first."""
    measured = scores.filter((pl.col("rank") == 0) & pl.col("latent").is_not_null() & pl.col("f1").is_not_null())
    return measured.sort("f1", "class_id", descending=[True, False])


def _title(row: pl.DataFrame) -> str:
    latent, class_name, f1, frequency = row.select("latent", "class_name", "f1", "frequency").row(0)
    found = "" if class_name is None else f"   {class_name}, held-out F1 {f1:.2f}"
    # A class is named by whoever made the data set: a dollar sign in it is not a formula.
    return f"Latent {latent}{found}   active on {100 * frequency:.2g} % of patches".replace("$", r"\$")


def _draw_picture(
    axes: Axes, picture: NDArray[np.uint8], patches: pl.DataFrame, grid: tuple[int, int], strongest: float
) -> None:
    """Draw one picture with its activation, its peak outlined and the peak's value below."""
    activation = np.zeros(grid[0] * grid[1])
    activation[patches["token"].to_numpy()] = patches["value"].to_numpy() / strongest
    # Drawn in units of patches, so that outlines need no patch size.
    axes.imshow(lit(picture, activation.reshape(grid)), extent=(0, grid[1], grid[0], 0), interpolation="none")
    token, value = patches.filter("peak").select("token", "value").row(0)
    row, column = divmod(token, grid[1])
    axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=_PEAK_COLOUR, linewidth=1.1))
    axes.set_xlim(0, grid[1])
    axes.set_ylim(grid[0], 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"{value:.2f}", labelpad=1.5)
