"""Sheet of a data set: a few pictures as a model sees them, over their masks or labels, so that a wrong one is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.data.index import read_classes, read_index
from visae.figures.pictures import load_pictures
from visae.figures.segmentation_maps import class_colours, coloured
from visae.figures.style import PAGE_WIDTH, plain, save_figure, style
from visae.heads.masks import UNLABELLED, Masks
from visae.vision.card import ModelCard
from visae.vision.facts import model_facts

COLUMNS = 6
"""Pictures in a row."""

ROWS = 2
"""Rows of pictures; where there are masks, each has them below it."""

_IN_LEGEND = 17
_LETTERS = 20  # of a name above a picture
_LINE = 118  # letters in a line above all
_UNLABELLED_COLOUR = (0.0, 0.0, 0.0)


def data(index: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return one row a picture that is shown: image_id, split, label_name, path, mask_path, width, height.

    Drawn by seed, the splits in turn, and of each split another class as long as there is one.

    Parameters
    ----------
    index
        As `visae.data.index.read_index` returns it.
    """
    drawn = index.sample(fraction=1.0, shuffle=True, seed=seed)
    turns = drawn.with_columns(pl.int_range(pl.len()).over("split", "label").alias("turn"))
    in_turn = turns.sort("turn", maintain_order=True).with_columns(pl.int_range(pl.len()).over("split").alias("place"))
    shown = in_turn.sort("place", maintain_order=True).head(COLUMNS * ROWS).sort("image_id")
    return shown.select("image_id", "split", "label_name", "path", "mask_path", "width", "height")


def draw(
    table: pl.DataFrame,
    settings: FigureSettings,
    pictures: Mapping[int, NDArray[np.uint8]],
    masks: Mapping[int, NDArray[np.integer]],
    classes: Mapping[int, str],
    above: str,
) -> Figure:
    """Draw the table of `data`.

    Parameters
    ----------
    pictures
        uint8 (height, width, 3) by image_id, as the model sees them.
    masks
        Class ids (height, width) by image_id, 0 where nothing is labelled; empty where no picture has a mask.
    classes
        Names of the classes of masks by id.
    above
        A line above all.
    """
    seen = sorted({int(number) for mask in masks.values() for number in np.unique(mask)} - {0})
    palette = {**class_colours(seen, settings), 0: _UNLABELLED_COLOUR}
    panels_shown = {number: _over_mask(picture, masks.get(number), palette) for number, picture in pictures.items()}
    height, width = max(panel.shape[:2] for panel in panels_shown.values())
    rows, line = -(-len(table) // COLUMNS), settings.font_size / 72
    text = fill(plain(above), _LINE)
    in_legend = seen[:_IN_LEGEND]
    lines = rows * 1.5 + 1.5 * (text.count("\n") + 2) + (1.7 * -(-(len(in_legend) + 1) // COLUMNS) if masks else 0)
    with style(settings):
        side = PAGE_WIDTH / COLUMNS * height / width
        figure = Figure(figsize=(PAGE_WIDTH, rows * side + lines * line))
        figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02)
        panels = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for axes, row in zip(panels.flat, table.iter_rows(named=True), strict=False):
            axes.imshow(panels_shown[row["image_id"]])
            title = _short(f"{row['split']}: {row['label_name'] or Path(row['path']).stem}")
            axes.set_title(title, loc="left", size=settings.font_size * 0.85)
        if masks:
            handles = [Patch(color=palette[i], label=_short(classes[i])) for i in in_legend]
            handles.append(Patch(color=_UNLABELLED_COLOUR, label="unlabelled"))
            figure.legend(handles=handles, loc="outside lower left", ncols=COLUMNS)
        figure.suptitle(text, x=0.005, ha="left", size=settings.font_size * 0.9)
    return figure


def draw_reading_sheet(
    index_path: Path, card_path: Path, output: Path | Sequence[Path], *, settings: FigureSettings, seed: int = 0
) -> None:
    """Write the sheet as PDF, PNG and CSV.

    Parameters
    ----------
    index_path, card_path
        The data set's index.parquet and the model's model.json.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    seed
        Of the pictures that are drawn.
    """
    table, card, classes = data(read_index(index_path), seed), ModelCard.read(card_path), read_classes(index_path)
    pictures = {number: shown.seen for number, shown in load_pictures(_paths(table), card).items()}
    masked = table.filter(pl.col("mask_path").is_not_null())["image_id"].to_list()
    masks = {}
    if masked:
        ids = sorted(classes)
        reader, names = Masks(index_path, card, ids), np.array([*ids, 0])
        # The last name stands for UNLABELLED, which is -1.
        assert UNLABELLED == -1
        masks = {number: names[reader.array(number)] for number in masked}
    facts = model_facts(card)
    told = "; ".join(f"{what} {facts[what]}" for what in ("mean of pixels", "deviation of pixels", "weights"))
    above = f"{index_path.parent.name}, as {card_path.parent.name} sees it: {facts['sees']}; {told}"
    save_figure(draw(table, settings, pictures, masks, classes, above), table, output)


def _paths(table: pl.DataFrame) -> dict[int, str]:
    return dict(table.select("image_id", "path").iter_rows())


def _over_mask(
    picture: NDArray[np.uint8],
    mask: NDArray[np.integer] | None,
    palette: Mapping[int, tuple[float, float, float]],
) -> NDArray[np.uint8]:
    """Picture, and below it the same under its mask."""
    if mask is None:
        return picture
    gap = np.full((max(1, len(picture) // 50), *picture.shape[1:]), 255, np.uint8)
    return np.concatenate([picture, gap, coloured(picture, mask, palette)])


def _short(name: str) -> str:
    cut = name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
    return plain(cut)
