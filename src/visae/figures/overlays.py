"""Maps with a sign laid over pictures: warm where a patch speaks for a latent, blue where it speaks against it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from visae.figures.pictures import Shown, draw_exemplar, draw_plain, draw_region

FOR, AGAINST = (213, 94, 0), (0, 114, 178)
"""Okabe and Ito's vermilion and blue."""

_GREY = 0.45  # of the grey picture left under the colours, faded towards white paper
_STRONGEST = 0.9  # opacity of the patch with the largest value

PANELS = {"picture": "picture", "activation": "active", "attribution": "attributed", "occlusion": "missed if covered"}
"""What is drawn of each picture, in words."""


def weighted(picture: NDArray[np.uint8], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the picture in grey under the colours of a map, uint8 (height, width, 3).

    Parameters
    ----------
    picture
        uint8 (height, width, 3).
    values
        (rows, columns) of patches; opacity is the share of the largest absolute value.
    """
    height, width = picture.shape[:2]
    largest = np.abs(values).max()
    share = values / largest if largest > 0 else np.zeros_like(values)
    down = np.arange(height) * values.shape[0] // height
    across = np.arange(width) * values.shape[1] // width
    share = share[down[:, None], across, None]
    grey = 255 - _GREY * (255 - (picture @ np.array([0.299, 0.587, 0.114]))[..., None])
    colour = np.where(share > 0, np.array(FOR), np.array(AGAINST))
    opacity = _STRONGEST * np.abs(share)
    return np.rint(opacity * colour + (1 - opacity) * grey).astype(np.uint8)


def draw_map(
    axes: Axes, panel: str, rows: pl.DataFrame, picture: Shown, grid: tuple[int, int], region: NDArray | None = None
) -> None:
    """Draw one panel of PANELS.

    Parameters
    ----------
    rows
        One a patch, in order: activation, attribution, occlusion, and `peak`, which is outlined.
    region
        Patches to outline too, bool (rows, columns).
    """
    axes.set_frame_on(False)
    if panel == "picture" or rows[panel].null_count():
        draw_plain(axes, picture, grid)
    elif panel == "activation":
        draw_exemplar(axes, picture, _lit(rows), None, grid)
    else:
        seen = weighted(picture.seen, rows[panel].to_numpy().reshape(grid).astype(np.float64))
        draw_plain(axes, Shown(seen, seen), grid)
    if rows["peak"].any() and panel != "picture":
        draw_region(axes, rows["peak"].to_numpy().reshape(grid), "#000000")
    if region is not None:
        draw_region(axes, region)


def _lit(rows: pl.DataFrame) -> Mapping[int, float]:
    """Active patches, each with its share of the largest value."""
    active = rows.filter(pl.col("activation") > 0)
    return dict(zip(active["patch"], active["activation"] / active["activation"].max(), strict=True))
