"""Make counterfactual pairs: scenes, and beside each the same scene with exactly one cause drawn anew."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray
from PIL import Image

from visae.config.settings import ScenePairsSettings
from visae.data.painting import LIGHTS, TINTS, Causes, covered_by, painted, shadow
from visae.data.pictures import Picture
from visae.data.scenes import SPLITS, TEXTURE_NAMES, drawn_causes, free_place
from visae.data.shapes import SHAPES, reach
from visae.data.textures import BACKGROUNDS, backgrounds, surfaces
from visae.files import write_table
from visae.progress import progress_bar

BASE = "base"
"""Stands in names of files for the picture in which nothing is changed."""

PAIR_CLASSES = dict(enumerate(TEXTURE_NAMES, start=1))
PAIR_SPLITS = SPLITS[:2]

_TRIES = 20


@dataclass(frozen=True)
class ScenePair:
    """One picture of a group, and how it differs from the group's base.

    Attributes
    ----------
    cause
        What is changed; None for the base.
    image
        uint8 (size, size, 3).
    region
        Bool (size, size): pixels that the change may reach, all others are the same to the bit; None for the base.
    values
        Every cause of the picture by name, as text.
    """

    cause: str | None
    image: NDArray[np.uint8]
    region: NDArray[np.bool_] | None
    values: dict[str, str]


def make_scene_pairs(settings: ScenePairsSettings, folder: str | Path, seed: int) -> None:
    """Write pictures and regions as PNG, which loses nothing, and, last, `causes.parquet` (one row a picture).

    A group depends on the seed, its split and its number only. No picture is one of `scenes` of the same seed.

    Parameters
    ----------
    settings
        How many, how large, and which causes.
    folder
        Where to. What an earlier, longer run left there is removed.
    seed
        Decides everything.
    """
    folder, size = Path(folder), settings.image_size
    causes = list(dict.fromkeys(settings.causes))
    wanted = [(split, number) for split in PAIR_SPLITS for number in range(getattr(settings, split))]
    for kind in ("images", "regions"):
        for split in PAIR_SPLITS:
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
    (folder / "causes.parquet").unlink(missing_ok=True)
    # Loaded once, before threads ask for them.
    surfaces(size)
    backgrounds()

    def written(wish: tuple[str, int]) -> list[dict[str, Any]]:
        # Not written atomically: causes.parquet, written last, says that all are there.
        return [_saved(folder, *wish, pair) for pair in make_group(seed, *wish, size, causes)]

    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar(len(wanted), "making pairs", "scenes") as bar:
        for found in pool.map(written, wanted):
            rows += found
            bar.update()
    kept = {row[name] for row in rows for name in ("path", "region")}
    for path in folder.glob("*/*/*.png"):
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink()
    frame = polars.DataFrame(rows, schema_overrides={"cause": polars.String, "region": polars.String})
    write_table(folder / "causes.parquet", frame.with_row_index("image_id").cast({"image_id": polars.Int32}))


def make_group(seed: int, split: str, number: int, image_size: int, causes: Sequence[str]) -> Iterator[ScenePair]:
    """Make the base of a group, then one picture a cause; the same arguments give the same bytes.

    What a region is: of texture and tint the object's pixels, edges included; of shape and place the pixels that the
    object or its shadow covers in either picture; of the background all pixels that objects do not cover wholly; of
    the lighting all, as shading and shadows are everywhere.
    """
    base, changed, generator = _drawn_group(seed, split, number, image_size, causes)
    # Every picture of the group is painted from the same state: surfaces and backgrounds are cut out at one place.
    state = copy.deepcopy(generator)
    yield ScenePair(None, painted(base, generator, image_size, comparable=True)[0], None, _values(base, image_size))
    for cause, other in changed.items():
        image, _ = painted(other, copy.deepcopy(state), image_size, comparable=True)
        yield ScenePair(cause, image, _region(cause, base, other, image_size), _values(other, image_size))


def made_pairs(folder: Path) -> Iterator[Picture]:
    """List made pictures from their causes, so that image ids are those of causes.parquet."""
    numbers = {name: number for number, name in PAIR_CLASSES.items()}
    causes = polars.read_parquet(folder / "causes.parquet").sort("image_id")
    named = ("path", "split", "texture", "pair", "cause", "region")
    for path, split, texture, pair, cause, region in causes.select(named).iter_rows():
        found = None if region is None else f"{folder}/{region}"
        yield Picture(f"{folder}/{path}", split, numbers[texture], texture, pair=pair, cause=cause, region=found)


def _drawn_group(
    seed: int, split: str, number: int, image_size: int, causes: Sequence[str]
) -> tuple[Causes, dict[str, Causes], np.random.Generator]:
    """Draw a base in which every cause can be changed, the changes, and the generator to paint all with."""
    texture, attempt = TEXTURE_NAMES[number % len(TEXTURE_NAMES)], 0
    while True:
        # More numbers than scenes seed theirs with, so that no picture of theirs is drawn.
        generator = np.random.default_rng([seed, SPLITS.index(split), number, 2, attempt])
        base = drawn_causes(generator, texture, image_size)
        others = np.random.default_rng([seed, SPLITS.index(split), number, 3, attempt])
        # All are drawn, whatever is asked for: fewer causes make the same pictures of those that are left.
        every = {cause: change(others, base, image_size) for cause, change in _CHANGES.items()}
        found = {cause: other for cause, other in every.items() if other is not None}
        if len(found) == len(every):
            return base, {cause: found[cause] for cause in causes}, generator
        attempt += 1


def _with_largest(base: Causes, **changes: Any) -> Causes:
    return replace(base, objects=(replace(base.objects[0], **changes), *base.objects[1:]))


def _other(generator: np.random.Generator, options: Any, taken: set[str]) -> str:
    return str(generator.choice([option for option in options if option not in taken]))


def _other_texture(generator: np.random.Generator, base: Causes, image_size: int) -> Causes | None:
    return _with_largest(base, texture=_other(generator, TEXTURE_NAMES, {one.texture for one in base.objects}))


def _other_shape(generator: np.random.Generator, base: Causes, image_size: int) -> Causes | None:
    """Another shape that stays within the picture at the same place; None where there is none."""
    largest = base.objects[0]
    edge = min(largest.centre_x, largest.centre_y, image_size - largest.centre_x, image_size - largest.centre_y)
    fitting = [name for name in SHAPES if name != largest.shape and largest.size * reach(name) <= edge]
    return _with_largest(base, shape=str(generator.choice(fitting))) if fitting else None


def _other_tint(generator: np.random.Generator, base: Causes, image_size: int) -> Causes | None:
    return _with_largest(base, tint=_other(generator, TINTS, {base.objects[0].tint}))


def _other_place(generator: np.random.Generator, base: Causes, image_size: int) -> Causes | None:
    """A free place in another quarter of the picture; None where none is found."""
    largest, others = base.objects[0], list(base.objects[1:])
    for _ in range(_TRIES):
        x, y = free_place(generator, others, largest.size, reach(largest.shape), image_size)
        if math.isfinite(x) and quarter(x, y, image_size) != quarter(largest.centre_x, largest.centre_y, image_size):
            return _with_largest(base, centre_x=x, centre_y=y)
    return None


def _other_background(generator: np.random.Generator, base: Causes, image_size: int) -> Causes | None:
    return replace(base, background=_other(generator, BACKGROUNDS, {base.background}))


def _other_light(generator: np.random.Generator, base: Causes, image_size: int) -> Causes | None:
    return replace(base, light=_other(generator, LIGHTS, {base.light}))


_CHANGES = {
    "texture": _other_texture,
    "shape": _other_shape,
    "tint": _other_tint,
    "place": _other_place,
    "background": _other_background,
    "lighting": _other_light,
}


def quarter(x: float, y: float, image_size: int) -> str:
    """Name of the quarter of a picture that a point lies in."""
    return f"{'upper' if y < image_size / 2 else 'lower'} {'left' if x < image_size / 2 else 'right'}"


def _region(cause: str, base: Causes, other: Causes, image_size: int) -> NDArray[np.bool_]:
    """Pixels that a change may reach."""
    if cause == "lighting":
        return np.ones((image_size, image_size), dtype=bool)
    if cause == "background":
        return ~np.any([covered_by(one, image_size) == 1 for one in base.objects], axis=0)
    covers = [covered_by(causes.objects[0], image_size) for causes in (base, other)]
    reached = covers if cause in ("texture", "tint") else [*covers, *(shadow(cover, base.light) for cover in covers)]
    return np.any([part > 0 for part in reached], axis=0)


def _values(causes: Causes, image_size: int) -> dict[str, str]:
    largest = causes.objects[0]
    return {
        "texture": largest.texture,
        "shape": largest.shape,
        "tint": largest.tint,
        "place": quarter(largest.centre_x, largest.centre_y, image_size),
        "background": causes.background,
        "lighting": causes.light,
    }


def _saved(folder: Path, split: str, number: int, pair: ScenePair) -> dict[str, Any]:
    """Write a picture and its region; returns its row of causes.parquet."""
    name = f"{split}/{number:06d}-{pair.cause or BASE}.png"
    Image.fromarray(pair.image).save(folder / "images" / name, compress_level=6)
    if pair.region is not None:
        Image.fromarray(pair.region.astype(np.uint8) * 255).save(folder / "regions" / name, compress_level=6)
    return {
        "path": f"images/{name}",
        "split": split,
        "pair": f"{split}-{number:06d}",
        "cause": pair.cause,
        "region": None if pair.region is None else f"regions/{name}",
        **pair.values,
    }
