"""Make pictures whose every cause is known: shapes with photographic textures on photographs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray
from PIL import Image

from visae.config.settings import ScenesSettings
from visae.data.dealing import chosen_textures, dealt_background, dealt_texture
from visae.data.painting import LIGHTS, TINTS, Causes, DrawnObject, painted
from visae.data.shapes import SHAPES, reach
from visae.data.textures import BACKGROUNDS, NATURAL_SIDE, TEXTURES, backgrounds, surfaces
from visae.files import write_table, write_text
from visae.progress import progress_bar

TEXTURE_NAMES = tuple(TEXTURES)
BACKGROUND_CLASS = len(TEXTURE_NAMES) + 1
CLASSES = dict(enumerate((*TEXTURE_NAMES, "background"), start=1))
SPLITS = ("train", "val", "test")

# Sizes are equal-area radii in pixels of a 224-pixel picture.
_LARGEST_SIZE = (42.0, 58.0)
_SMALLEST_SIZE = 26.0
_SMALLER_SHARE = 0.8
_PLACING_TRIES = 60


@dataclass(frozen=True)
class Scene:
    """One picture, its mask and its causes.

    Attributes
    ----------
    image
        uint8 (size, size, 3).
    mask
        uint8 (size, size): class ids as in `CLASSES`.
    causes
        One dict an object, the largest first.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    causes: list[dict[str, Any]]


def make_scenes(settings: ScenesSettings, folder: str | Path, seed: int) -> None:
    """Write pictures, their masks, `classes.txt` and, last, `causes.parquet` (one row an object).

    The folder has the layout of `segmentation_folder`. A picture depends on the seed, its split and its
    number only: a longer run makes the same pictures and more. Textures are equally frequent as the
    largest object's, which is the picture's class; shape, tint, place and light do not depend on it, and the
    background does on split train alone, where the settings have a shortcut.

    Parameters
    ----------
    settings
        How many pictures, how large, and of what.
    folder
        Where to. What an earlier, longer run left there is removed.
    seed
        Decides everything.
    """
    folder = Path(folder)
    size, textures = settings.image_size, chosen_textures(settings)
    wanted = [(split, number) for split in SPLITS for number in range(getattr(settings, split))]
    for kind in ("images", "annotations"):
        for split in SPLITS:
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
    (folder / "causes.parquet").unlink(missing_ok=True)
    # Loaded once, before threads ask for them.
    surfaces(size)
    backgrounds()

    def written(wish: tuple[str, int]) -> list[dict[str, Any]]:
        split, number = wish
        scene = make_scene(seed, split, number, size, textures, settings.shortcut)
        # Not written atomically: causes.parquet, written last, says that all are there.
        Image.fromarray(scene.image).save(_image_file(folder, split, number), quality=95, subsampling=0)
        Image.fromarray(scene.mask).save(_mask_file(folder, split, number), compress_level=6)
        return scene.causes

    rows: list[dict[str, Any]] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar(len(wanted), "making scenes", "pictures") as bar,
    ):
        for image_id, ((split, number), causes) in enumerate(zip(wanted, pool.map(written, wanted), strict=True)):
            path = _image_file(folder, split, number).relative_to(folder).as_posix()
            rows += [{"image_id": image_id, "path": path, "split": split, **cause} for cause in causes]
            bar.update()
    _remove_others(folder, wanted)
    write_text(folder / "classes.txt", "".join(f"{number}\t{name}\n" for number, name in CLASSES.items()))
    frame = polars.DataFrame(rows).cast(
        {"image_id": polars.Int32, "object": polars.Int16, "visible_pixels": polars.Int32}
    )
    write_table(folder / "causes.parquet", frame)


def make_scene(
    seed: int, split: str, number: int, image_size: int, textures: Sequence[str] = TEXTURE_NAMES, shortcut: float = 0.0
) -> Scene:
    """Make picture `number` of a split; the same arguments give the same bytes.

    Parameters
    ----------
    textures
        That the largest object can have.
    shortcut
        Share of pictures of split train whose background is the one of their class; in other splits classes and
        backgrounds are then independent. With 0 every picture has any background.
    """
    of_split = [seed, SPLITS.index(split)]
    generator = np.random.default_rng([*of_split, number])
    texture = dealt_texture(of_split, number, textures)
    drawn = drawn_causes(generator, texture, image_size)
    if shortcut:
        share = shortcut if split == "train" else None
        drawn = replace(drawn, background=dealt_background(of_split, number, texture, textures, share))
    image, owner = painted(drawn, generator, image_size)
    visible = np.bincount(owner.ravel(), minlength=len(drawn.objects) + 1)[1:]
    causes = [
        {
            "object": position,
            **asdict(one),
            "visible_pixels": int(visible[position]),
            "is_largest": position == int(visible.argmax()),
            "lighting": drawn.light,
            "lighting_strength": drawn.strength,
            "background": drawn.background,
        }
        for position, one in enumerate(drawn.objects)
    ]
    ids = [BACKGROUND_CLASS] + [TEXTURE_NAMES.index(one.texture) + 1 for one in drawn.objects]
    return Scene(image, np.array(ids, dtype=np.uint8)[owner], causes)


def drawn_causes(generator: np.random.Generator, texture: str, image_size: int) -> Causes:
    """Draw all causes of a picture whose largest object has a texture."""
    objects = _drawn_objects(generator, texture, image_size)
    light = str(generator.choice(list(LIGHTS)))
    strength = float(generator.uniform(0.1, 0.45))
    return Causes(tuple(objects), light, strength, str(generator.choice(list(BACKGROUNDS))))


def _drawn_objects(generator: np.random.Generator, texture: str, image_size: int) -> list[DrawnObject]:
    """Draw one to three objects, the largest first, with textures that differ from each other."""
    factor = image_size / NATURAL_SIDE
    largest = generator.uniform(*_LARGEST_SIZE)
    n_objects = int(generator.integers(1, 4))
    others = [name for name in generator.permutation(TEXTURE_NAMES).tolist() if name != texture]
    found: list[DrawnObject] = []
    for name in [texture, *others][:n_objects]:
        size = largest if not found else generator.uniform(_SMALLEST_SIZE, _SMALLER_SHARE * largest)
        shape = str(generator.choice(SHAPES))
        centre = free_place(generator, found, size * factor, reach(shape), image_size)
        drawn = DrawnObject(
            shape=shape,
            texture=name,
            tint=str(generator.choice(list(TINTS))),
            centre_x=centre[0],
            centre_y=centre[1],
            size=size * factor,
            rotation=float(generator.uniform(0, 360)),
            zoom=float(generator.uniform(0.8, 1.25)),
        )
        if math.isfinite(centre[0]):
            found.append(drawn)
    return found


def free_place(
    generator: np.random.Generator, placed: list[DrawnObject], size: float, shape_reach: float, image_size: int
) -> tuple[float, float]:
    """Find a centre that keeps the shape inside and nearly clear of the others; not a number where there is none."""
    margin = size * shape_reach
    for centre in generator.uniform(margin, image_size - margin, (_PLACING_TRIES, 2)).tolist():
        distances = [math.dist(centre, (other.centre_x, other.centre_y)) for other in placed]
        if all(away > size + other.size for away, other in zip(distances, placed, strict=True)):
            return centre[0], centre[1]
    return math.nan, math.nan


def _image_file(folder: Path, split: str, number: int) -> Path:
    return folder / "images" / split / f"{number:06d}.jpg"


def _mask_file(folder: Path, split: str, number: int) -> Path:
    return folder / "annotations" / split / f"{number:06d}.png"


def _remove_others(folder: Path, wanted: list[tuple[str, int]]) -> None:
    """Remove pictures of an earlier, longer run."""
    kept = {_image_file(folder, *wish) for wish in wanted} | {_mask_file(folder, *wish) for wish in wanted}
    for split in SPLITS:
        for path in [*(folder / "images" / split).glob("*.jpg"), *(folder / "annotations" / split).glob("*.png")]:
            if path not in kept:
                path.unlink()
