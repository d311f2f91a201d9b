"""The photographs that scikit-image carries: surfaces to fill shapes with, and backgrounds."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import skimage
from numpy.typing import NDArray
from PIL import Image

from visae.errors import DataError

# Scales below are for pictures of this side; other sides scale everything alike.
NATURAL_SIDE = 224
# The largest shape at the widest zoom sees a disc of that many pixels across.
_LEAST_SIDE = 260


@dataclass(frozen=True)
class Photograph:
    """A file of scikit-image and the part of it that is used.

    Attributes
    ----------
    box
        Left, upper, right, lower edge in pixels; None is the whole photograph.
    scale
        Factor to the resolution at which its grain spans a few patches of 14 pixels.
    edge
        How it goes on where it is smaller than the largest shape: mirrored, or repeated, as mirrored print
        cannot be read.
    """

    file: str
    box: tuple[int, int, int, int] | None = None
    scale: float = 1.0
    edge: Literal["symmetric", "wrap"] = "symmetric"


TEXTURES = {
    "brick": Photograph("brick.png", scale=0.65),
    "grass": Photograph("grass.png", scale=0.8),
    "gravel": Photograph("gravel.png", scale=0.75),
    "coins": Photograph("coins.png", box=(8, 8, 376, 296), scale=0.6),
    "print": Photograph("page.png", box=(4, 36, 380, 140), scale=0.8, edge="wrap"),
    "fur": Photograph("chelsea.png", box=(133, 8, 283, 78), scale=1.2),
    "tissue": Photograph("ihc.png", scale=0.75),
    "stars": Photograph("hubble_deep_field.jpg", scale=0.7),
}
BACKGROUNDS = {
    "astronaut": Photograph("astronaut.png"),
    "camera": Photograph("camera.png", box=(200, 0, 512, 262)),  # above the lawn, which would pass for grass
    "coffee": Photograph("coffee.png"),
    "moon": Photograph("moon.png"),
    "motorcycle": Photograph("motorcycle_left.png"),
    "rocket": Photograph("rocket.jpg"),
}


@functools.lru_cache(maxsize=2)
def surfaces(image_size: int) -> dict[str, Image.Image]:
    """Load every texture at the resolution for pictures of `image_size`, large enough for the largest shape."""
    factor = image_size / NATURAL_SIDE
    return {name: _surface(photograph, factor) for name, photograph in TEXTURES.items()}


@functools.lru_cache(maxsize=1)
def backgrounds() -> dict[str, Image.Image]:
    """Load every background at full resolution."""
    return {name: _part(photograph) for name, photograph in BACKGROUNDS.items()}


def surface_patch(
    surface: Image.Image, side: int, zoom: float, rotation: float, place: tuple[float, float]
) -> NDArray[np.float32]:
    """Cut a turned square out of a surface.

    Parameters
    ----------
    surface
        RGB photograph from `surfaces`.
    side
        Side of the square in pixels.
    zoom
        Pixels of the surface a pixel of the square.
    rotation
        Degrees, clockwise as seen.
    place
        Where the centre lies, (x, y) in [0, 1] of what keeps the square's inscribed disc on the surface.

    Returns
    -------
    numpy.ndarray
        float32 (side, side, 3) in [0, 255].
    """
    margin = min(zoom * side / 2, surface.width / 2, surface.height / 2)
    centre_x = margin + place[0] * (surface.width - 2 * margin)
    centre_y = margin + place[1] * (surface.height - 2 * margin)
    cosine, sine = zoom * math.cos(math.radians(rotation)), zoom * math.sin(math.radians(rotation))
    half = side / 2
    affine = (
        cosine, sine, centre_x - half * (cosine + sine),
        -sine, cosine, centre_y - half * (cosine - sine),
    )  # fmt: skip
    patch = surface.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    return np.asarray(patch, dtype=np.float32)


def background_crop(name: str, image_size: int, share: float, place: tuple[float, float]) -> NDArray[np.float32]:
    """Cut a square out of a background, `share` of its shorter side wide, and scale it: float32 (size, size, 3)."""
    photograph = backgrounds()[name]
    side = share * min(photograph.size)
    left, upper = place[0] * (photograph.width - side), place[1] * (photograph.height - side)
    box = (left, upper, left + side, upper + side)
    return np.asarray(photograph.resize((image_size, image_size), Image.Resampling.LANCZOS, box=box), dtype=np.float32)


def _part(photograph: Photograph) -> Image.Image:
    path = Path(skimage.__file__).parent / "data" / photograph.file
    if not path.is_file():
        raise DataError(f"{path} is missing: kind: scenes needs the photographs of scikit-image's own wheel")
    with Image.open(path) as opened:
        return opened.convert("RGB").crop(photograph.box) if photograph.box else opened.convert("RGB")


def _surface(photograph: Photograph, factor: float) -> Image.Image:
    part = _part(photograph)
    scale = photograph.scale * factor
    part = part.resize((round(part.width * scale), round(part.height * scale)), Image.Resampling.LANCZOS)
    least = math.ceil(_LEAST_SIDE * factor)
    missing = [(0, max(0, least - part.height)), (0, max(0, least - part.width)), (0, 0)]
    return Image.fromarray(np.pad(np.asarray(part), missing, mode=photograph.edge))
