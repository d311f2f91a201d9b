"""Outlines of the drawn shapes and their anti-aliased coverage of pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_SUPERSAMPLING = 4


def _regular(corners: int, start: float = -math.pi / 2) -> NDArray[np.float64]:
    angles = start + np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> NDArray[np.float64]:
    points = _regular(10)
    points[1::2] *= 0.52
    return points


def _cross() -> NDArray[np.float64]:
    arm, reach = 0.42, 1.0
    corner = np.array([[arm, -reach], [arm, -arm], [reach, -arm]])
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([corner @ np.linalg.matrix_power(quarter.T, turns) for turns in range(4)])


def _same_area(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale an outline to the area of the unit circle, and put its centre of mass at the origin."""
    following = np.roll(points, -1, axis=0)
    cross = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    area = cross.sum() / 2
    centre = ((points + following) * cross[:, None]).sum(axis=0) / (6 * area)
    return (points - centre) * math.sqrt(math.pi / abs(area))


# All have the same area at the same size, so that a shape says nothing on how many pixels it covers.
OUTLINES: dict[str, NDArray[np.float64]] = {
    "circle": _same_area(_regular(96)),
    "ellipse": _same_area(_regular(96) * [1.0, 0.58]),
    "square": _same_area(_regular(4)),
    "triangle": _same_area(_regular(3)),
    "star": _same_area(_star()),
    "cross": _same_area(_cross()),
}
SHAPES = tuple(OUTLINES)


def reach(shape: str) -> float:
    """Distance from the centre to the farthest point of a shape of size 1."""
    return float(np.linalg.norm(OUTLINES[shape], axis=1).max())


def coverage(
    shape: str, centre: tuple[float, float], size: float, rotation: float, image_size: int
) -> NDArray[np.float32]:
    """Share of each pixel that a shape covers.

    Parameters
    ----------
    shape
        One of `SHAPES`.
    centre
        Centre of mass (x, y) in pixels, from the picture's upper left corner.
    size
        Radius in pixels of the circle that has the shape's area.
    rotation
        Degrees, clockwise as seen.
    image_size
        Side of the picture in pixels.

    Returns
    -------
    numpy.ndarray
        float32 (image_size, image_size) in [0, 1].
    """
    turn = math.radians(rotation)
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    points = (OUTLINES[shape] @ matrix * size + centre) * _SUPERSAMPLING - 0.5
    fine = Image.new("L", (image_size * _SUPERSAMPLING,) * 2)
    ImageDraw.Draw(fine).polygon([(x, y) for x, y in points.tolist()], fill=255)
    return np.asarray(fine.reduce(_SUPERSAMPLING), dtype=np.float32) / np.float32(255)
