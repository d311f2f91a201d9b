"""A picture as a figure shows it: as the model saw it, lit where a latent is active, cropped around a patch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from visae.data.images import fitted, open_image
from visae.data.index import read_index
from visae.vision.card import ModelCard

CROP_PATCHES = 3
"""Patches down and across in a crop: one alone is too small to tell what it shows."""

REGION_COLOUR = "#D55E00"
"""Colour of the outline of a region."""

_CONTRAST = 0.4  # of the grey picture left where the latent is silent, faded towards white paper
_FAINTEST = 0.35  # opacity of colour on a patch that is only just active
_PEAK_COLOUR = "#0072B2"  # Okabe and Ito's blue: shows on faded grey and on the tint
_TINT = (255, 170, 0)  # laid over lit patches: without it, a lit road looks like a silent one
_TINT_SHARE = 0.2  # of the tint on the most active patch
_FINEST = 4  # times the size that the model sees: more is not seen in a crop


class Shown(NamedTuple):
    """A picture, uint8 (height, width, 3): `seen` at the size of the model's input, `fine` a whole multiple of it."""

    seen: NDArray[np.uint8]
    fine: NDArray[np.uint8]


def load_pictures(paths: Mapping[int, str | Path], card: ModelCard, *, fine: bool = False) -> dict[int, Shown]:
    """Read pictures by their number, cut or squashed as the model sees them.

    Parameters
    ----------
    paths
        Where each lies.
    card
        Of the model that saw them.
    fine
        Also keep what detail of the file is lost at the size of the model's input; without it, both are the same.
    """
    found, seen_as = {}, (card.fit, card.interpolation, card.crop_share)
    for number, path in paths.items():
        image = open_image(path)
        height, width = card.image_size
        times = max(1, min(_FINEST, image.height // height, image.width // width)) if fine else 1
        seen = np.asarray(fitted(image, card.image_size, *seen_as))
        detailed = fitted(image, (height * times, width * times), *seen_as)
        found[number] = Shown(seen, np.asarray(detailed) if times > 1 else seen)
    return found


def load_indexed(image_ids: pl.Series, index_path: Path, card: ModelCard, *, fine: bool = False) -> dict[int, Shown]:
    """Read pictures of a data set by image_id; as `load_pictures`."""
    listed = read_index(index_path).filter(pl.col("image_id").is_in(image_ids.unique().to_list()))
    return load_pictures(dict(listed.select("image_id", "path").iter_rows()), card, fine=fine)


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


def crop_box(token: int, grid: tuple[int, int], size: int = CROP_PATCHES) -> tuple[int, int, int, int]:
    """Upper, left, lower and right edge, in patches, of a square around a patch that stays within the grid."""
    rows, columns = min(size, grid[0]), min(size, grid[1])
    row, column = divmod(token, grid[1])
    upper = min(max(row - rows // 2, 0), grid[0] - rows)
    left = min(max(column - columns // 2, 0), grid[1] - columns)
    return upper, left, upper + rows, left + columns


def crop(picture: NDArray[np.uint8], box: tuple[int, int, int, int], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut a box of patches out of a picture."""
    down, across = picture.shape[0] // grid[0], picture.shape[1] // grid[1]
    return picture[box[0] * down : box[2] * down, box[1] * across : box[3] * across]


def peak_crop(picture: Shown, token: int, grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut the surroundings of a patch out of a picture, at the finest size at hand; of a class token, the picture."""
    if token < 0:
        return picture.fine
    return crop(picture.fine, crop_box(token, grid), grid)


def draw_plain(axes: Axes, picture: Shown, grid: tuple[int, int]) -> None:
    """Draw a picture as the model saw it."""
    _draw(axes, picture.seen, (0, 0, *grid))


def draw_lit(axes: Axes, picture: Shown, activation: NDArray[np.float64], peak: int | None) -> None:
    """Draw a picture lit where active, (rows, columns) of 0 to 1, with one patch outlined."""
    rows, columns = activation.shape
    _draw(axes, lit(picture.seen, activation), (0, 0, rows, columns))
    if peak is not None:
        _outline(axes, peak, columns)


def draw_exemplar(
    axes: Axes, picture: Shown, values: Mapping[int, float], peak: int | None, grid: tuple[int, int]
) -> None:
    """Draw a picture lit on its active patches; plain where only its class token, or a register, is active.

    Parameters
    ----------
    values
        By active token, 0 to 1; tokens below 0 lie on no patch.
    peak
        Token to outline, if it is a patch.
    """
    activation = np.zeros(grid[0] * grid[1])
    patches = [token for token in values if token >= 0]
    activation[patches] = [values[token] for token in patches]
    if patches or not values:
        draw_lit(axes, picture, activation.reshape(grid), peak if peak is not None and peak >= 0 else None)
    else:
        draw_plain(axes, picture, grid)


def draw_crop(axes: Axes, picture: Shown, peak: int, grid: tuple[int, int]) -> None:
    """Draw the surroundings of a patch, with the patch outlined; of a class token, the picture."""
    if peak < 0:
        _draw(axes, picture.fine, (0, 0, *grid))
        return
    _draw(axes, peak_crop(picture, peak, grid), crop_box(peak, grid))
    _outline(axes, peak, grid[1])


def draw_region(axes: Axes, region: NDArray[np.bool_], colour: str = REGION_COLOUR) -> None:
    """Draw the outline of a region, bool (rows, columns) of patches, over a picture."""
    padded = np.pad(region, 1).astype(np.int8)
    lines = [((x, y), (x, y + 1)) for y, x in np.argwhere(np.diff(padded, axis=1)[1:-1])]
    lines += [((x, y), (x + 1, y)) for y, x in np.argwhere(np.diff(padded, axis=0)[:, 1:-1])]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=1.4, capstyle="projecting"))


def _draw(axes: Axes, picture: NDArray[np.uint8], box: tuple[int, int, int, int]) -> None:
    """Draw in units of patches, so that outlines need no patch size."""
    upper, left, lower, right = box
    axes.imshow(picture, extent=(left, right, lower, upper), interpolation="none")
    axes.set_xlim(left, right)
    axes.set_ylim(lower, upper)
    axes.set_xticks([])
    axes.set_yticks([])


def _outline(axes: Axes, token: int, columns: int) -> None:
    row, column = divmod(token, columns)
    # Thin enough that what is inside can be seen, in a small picture too.
    left, right = axes.get_xlim()
    points = axes.bbox.width / axes.figure.dpi * 72 / (right - left)
    width = min(1.1, max(0.5, 0.2 * points))
    axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=_PEAK_COLOUR, linewidth=width))
