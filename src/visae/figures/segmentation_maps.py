"""Pictures with the head's prediction before an edit, after it, and after the control's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.data.images import fitted, open_image
from visae.data.index import read_classes, read_index
from visae.figures.arms import edit_in_words
from visae.figures.style import PAGE_WIDTH, area_colours, plain, save_figure, style
from visae.vision.card import ModelCard

ROWS = 6
"""Classes that are shown: those with the most edited patches, one picture each."""

_OPACITY = 0.62
_COLUMNS = ("Picture", "Prediction before", "Class's latent edited", "Random latent edited")


def data(examples: pl.DataFrame) -> pl.DataFrame:
    """Return one row a patch of the chosen pictures.

    Of each class the picture with the most edited patches is shown, at the scale that is farthest from 0.

    Returns
    -------
    DataFrame
        image_id, class_name, class_id, scale, token, edited, and class ids before, after_automatic and
        after_random_latent.
    """
    ids = pl.col("before", "after").cast(pl.List(pl.Int16))
    maps = examples.filter(edit="suppress", size="natural").with_columns(ids)
    if maps.is_empty():
        return maps.select("image_id", "class_name", "class_id", "scale")
    scale = max(maps["scale"].unique().to_list(), key=abs)
    n_edited = pl.col("edited").list.len()
    chosen = (
        maps.filter(pl.col("scale") == scale, pl.col("arm") == "automatic")
        .sort(n_edited, "image_id", descending=[True, False])
        .unique("class_id", keep="first", maintain_order=True)
        .head(ROWS)
    )
    keys = ["image_id", "class_name", "class_id", "scale"]
    control = maps.filter(pl.col("arm") == "random_latent").select(*keys, pl.col("after").alias("after_random_latent"))
    tokens = pl.int_ranges(pl.col("before").list.len()).alias("token")
    return (
        chosen.rename({"after": "after_automatic", "edited": "patches"})
        .join(control, on=keys, maintain_order="left")
        .with_columns(tokens)
        .explode("token", "before", "after_automatic", "after_random_latent")
        .with_columns(edited=pl.col("token").is_in(pl.col("patches")))
        .select(*keys, "token", "edited", "before", "after_automatic", "after_random_latent")
    )


def draw(
    table: pl.DataFrame,
    settings: FigureSettings,
    pictures: Mapping[int, NDArray[np.uint8]],
    grid: tuple[int, int],
    classes: Mapping[int, str],
) -> Figure:
    """Draw the table of `data`.

    Parameters
    ----------
    pictures
        uint8 (size, size, 3) by image_id, as the model saw them.
    grid
        Patches down and across.
    classes
        Names by class id.
    """
    rows = table.partition_by("class_id", "image_id", maintain_order=True) if len(table) else []
    ids = ["before", "after_automatic", "after_random_latent"]
    seen = sorted({int(i) for column in ids if rows for i in table[column].unique()})
    palette = class_colours(sorted(classes), settings)
    line = settings.font_size / 72
    side = PAGE_WIDTH / len(_COLUMNS)
    legend = (len(seen) // 6 + 1) * 1.6 * line
    with style(settings):
        figure = Figure(figsize=(PAGE_WIDTH, max(len(rows), 1) * (side + 0.3 * line) + legend + 3 * line))
        figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02)
        panels = figure.subplots(max(len(rows), 1), len(_COLUMNS), squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for axes, title in zip(panels[0], _COLUMNS, strict=True):
            axes.set_title(title)
        for line_of_panels, row in zip(panels, rows, strict=False):
            picture = pictures[row["image_id"][0]]
            edited = row["edited"].to_numpy().reshape(grid)
            line_of_panels[0].imshow(picture)
            name = plain(row["class_name"][0])
            line_of_panels[0].text(
                -0.04, 0.5, name, rotation=90, ha="right", va="center", transform=line_of_panels[0].transAxes
            )
            for axes, column in zip(line_of_panels[1:], ids, strict=True):
                axes.imshow(coloured(picture, row[column].to_numpy().reshape(grid), palette))
                _outline(axes, edited, picture.shape[0] / grid[0])
        if rows:
            figure.suptitle(f"Outlined patches are edited: {edit_in_words(rows[0]['scale'][0])}", x=0.01, ha="left")
            handles = [Patch(color=palette[i], label=plain(classes.get(i, str(i)))) for i in seen]
            figure.legend(handles=handles, loc="outside lower left", ncols=6)
    return figure


def draw_segmentation_maps(
    examples: Path, index_path: Path, card_path: Path, output: Path | Sequence[Path], *, settings: FigureSettings
) -> None:
    """Write the maps as PDF, PNG and CSV.

    Parameters
    ----------
    examples
        examples.parquet of the experiment.
    index_path, card_path
        The data set's index.parquet and the model's model.json.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    """
    table, card = data(pl.read_parquet(examples)), ModelCard.read(card_path)
    wanted = read_index(index_path).filter(pl.col("image_id").is_in(table["image_id"].unique().to_list()))
    pictures = {
        image_id: np.asarray(fitted(open_image(path), card.image_size, card.fit, card.interpolation, card.crop_share))
        for image_id, path in wanted.select("image_id", "path").iter_rows()
    }
    save_figure(draw(table, settings, pictures, card.grid, read_classes(index_path)), table, output)


def class_colours(class_ids: Sequence[int], settings: FigureSettings) -> dict[int, tuple[float, float, float]]:
    """A colour for each class, then lighter and darker versions of them.

    A class has the same colour in all figures of a data set, so that all its classes are given, shown or not.
    """
    base = [np.array(to_rgb(colour)) for colour in area_colours(settings)]
    shades = base + [0.45 * c + 0.55 for c in base] + [0.5 * c for c in base]
    return {class_id: tuple(shades[number % len(shades)]) for number, class_id in enumerate(class_ids)}


def coloured(
    picture: NDArray[np.uint8], ids: NDArray[np.integer], palette: Mapping[int, tuple[float, float, float]]
) -> NDArray[np.uint8]:
    """Lay class colours over a grey version of the picture.

    Parameters
    ----------
    picture
        uint8 (height, width, 3).
    ids
        Class ids (rows, columns) of patches.
    """
    height, width = picture.shape[:2]
    down, across = np.arange(height) * ids.shape[0] // height, np.arange(width) * ids.shape[1] // width
    table = np.zeros((int(ids.max()) + 1, 3))
    for class_id in np.unique(ids):
        table[class_id] = palette[int(class_id)]
    colour = 255 * table[ids][down[:, None], across]
    grey = (picture @ np.array([0.299, 0.587, 0.114]))[..., None]
    return np.rint(_OPACITY * colour + (1 - _OPACITY) * grey).astype(np.uint8)


def _outline(axes: Axes, edited: NDArray[np.bool_], side: float) -> None:
    """Draw the border between edited patches and others, white on black, so that it shows on every colour."""
    padded = np.pad(edited, 1)
    segments = []
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        segments.append(((column, column + 1), (row, row)))
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        segments.append(((column, column), (row, row + 1)))
    for colour, width in (("black", 1.4), ("white", 0.7)):
        for xs, ys in segments:
            axes.plot(np.array(xs) * side - 0.5, np.array(ys) * side - 0.5, color=colour, linewidth=width)
