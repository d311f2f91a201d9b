"""Paint the pictures of made scenes: objects, their shadows and the light on a background."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from visae.data.shapes import SHAPES, coverage, reach
from visae.data.textures import NATURAL_SIDE, background_crop, surface_patch, surfaces

# Factors of red, green and blue: moderate, so that a texture stays what it is.
TINTS = {
    "neutral": (1.0, 1.0, 1.0),
    "red": (1.10, 0.84, 0.82),
    "yellow": (1.08, 1.02, 0.72),
    "green": (0.86, 1.06, 0.84),
    "blue": (0.80, 0.94, 1.12),
    "violet": (1.02, 0.84, 1.08),
}
# Where the light comes from: (x, y) with y down.
LIGHTS = {"left": (-1, 0), "top": (0, -1), "right": (1, 0), "bottom": (0, 1)}


@dataclass(frozen=True)
class DrawnObject:
    """The causes of one object, in pixels and degrees."""

    shape: str
    texture: str
    tint: str
    centre_x: float
    centre_y: float
    size: float
    rotation: float
    zoom: float


@dataclass(frozen=True)
class Causes:
    """All that is to be seen in a picture, but for where surfaces and background are cut out.

    Attributes
    ----------
    objects
        The largest first.
    light, strength
        Where it comes from, and how much darker the far side is.
    """

    objects: tuple[DrawnObject, ...]
    light: str
    strength: float
    background: str


def painted(
    causes: Causes, generator: np.random.Generator, image_size: int, *, comparable: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Paint a picture.

    Parameters
    ----------
    generator
        Draws where surfaces and background are cut out, as many numbers whatever the causes: two pictures that are
        painted with generators in the same state differ in their causes alone.
    comparable
        Where one cause is changed, pixels that it has no part in are the same to the bit: a surface is cut out as large
        for every shape, and what an object covers wholly keeps no trace of what lies below, not even by rounding.

    Returns
    -------
    image
        uint8 (size, size, 3).
    owner
        int16 (size, size): 1 + the number of the object that is seen at a pixel, 0 for the background.
    """
    canvas = _background(generator, causes.background, image_size)
    owner = np.zeros((image_size, image_size), dtype=np.int16)
    for position in range(len(causes.objects), 0, -1):  # the largest is drawn last: nothing hides it
        place = generator.random(2)
        shape_reach = max(map(reach, SHAPES)) if comparable else reach(causes.objects[position - 1].shape)
        drawn = causes.objects[position - 1]
        covered = _draw(canvas, drawn, (float(place[0]), float(place[1])), shape_reach, causes.light, exact=comparable)
        owner[covered >= 0.5] = position
    canvas *= _lighting(causes.light, causes.strength, image_size)[:, :, None]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), owner


def covered_by(drawn: DrawnObject, image_size: int) -> NDArray[np.float32]:
    """Share of each pixel that an object covers, float32 (size, size)."""
    return coverage(drawn.shape, (drawn.centre_x, drawn.centre_y), drawn.size, drawn.rotation, image_size)


def _background(generator: np.random.Generator, name: str, image_size: int) -> NDArray[np.float32]:
    """Cut, mirror, pale and dim a background: float32 (size, size, 3)."""
    share, x, y, colour, brightness = generator.uniform([0.55, 0, 0, 0.3, 0.75], [1, 1, 1, 1, 1.0])
    crop = background_crop(name, image_size, share, (x, y))
    if generator.random() < 0.5:
        crop = crop[:, ::-1]
    grey = crop.mean(axis=2, keepdims=True)
    return np.ascontiguousarray((grey + colour * (crop - grey)) * brightness, dtype=np.float32)


def _draw(
    canvas: NDArray[np.float32],
    drawn: DrawnObject,
    place: tuple[float, float],
    shape_reach: float,
    light: str,
    *,
    exact: bool,
) -> NDArray[np.float32]:
    """Paint one object and its shadow over `canvas`; returns the share of each pixel that it covers."""
    image_size = len(canvas)
    covered = covered_by(drawn, image_size)
    canvas *= 1 - 0.45 * shadow(covered, light)[:, :, None]
    side = 2 * math.ceil(drawn.size * shape_reach + 1)
    patch = surface_patch(surfaces(image_size)[drawn.texture], side, drawn.zoom, drawn.rotation, place)
    left, upper = round(drawn.centre_x - side / 2), round(drawn.centre_y - side / 2)
    inside = _inside(upper, side, image_size), _inside(left, side, image_size)
    patch = patch[inside[0].start - upper : inside[0].stop - upper, inside[1].start - left : inside[1].stop - left]
    alpha = covered[inside][:, :, None]
    tint = np.array(TINTS[drawn.tint], dtype=np.float32)
    canvas[inside] += alpha * (patch * tint - canvas[inside])
    if exact:
        canvas[inside] = np.where(alpha == 1, patch * tint, canvas[inside])
    return covered


def _inside(start: int, length: int, image_size: int) -> slice:
    return slice(max(0, start), min(image_size, start + length))


def shadow(covered: NDArray[np.float32], light: str) -> NDArray[np.float32]:
    """Blur the shape's coverage and move it away from the light."""
    unit = len(covered) / NATURAL_SIDE
    blurred = Image.fromarray((covered * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(4 * unit))
    x, y = LIGHTS[light]
    affine = (1, 0, 4 * unit * x, 0, 1, 4 * unit * y)  # where a pixel comes from; nothing comes from outside
    moved = np.asarray(blurred.transform(blurred.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))
    return moved.astype(np.float32) / np.float32(255)


def _lighting(light: str, strength: float, image_size: int) -> NDArray[np.float32]:
    """Brightness (size, size), from 1 + strength / 2 at the light to 1 - strength at the far side."""
    x, y = LIGHTS[light]
    along = np.linspace(-1, 1, image_size, dtype=np.float32)
    gradient = (x * along[None, :] + y * along[:, None]).astype(np.float32)
    return (1 + strength * np.where(gradient > 0, 0.5 * gradient, gradient)).astype(np.float32)
