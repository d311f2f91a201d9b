"""Which texture and which background a made scene gets: evenly, or so that one goes with the other on train."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visae.config.settings import ScenesSettings
from visae.data.textures import BACKGROUNDS, TEXTURES
from visae.errors import DataError


def chosen_textures(settings: ScenesSettings) -> tuple[str, ...]:
    """Textures that the largest object can have.

    Raises
    ------
    DataError
        If there is one only, one comes twice, or with a shortcut there are more than backgrounds.
    """
    textures = tuple(settings.textures or TEXTURES)
    if len(set(textures)) < len(textures) or len(textures) < 2:
        raise DataError(f"textures: {', '.join(textures)}: name two or more, each once")
    if settings.shortcut and len(textures) > len(BACKGROUNDS):
        raise DataError(
            f"shortcut: each of {len(textures)} textures would need a background of its own, and there are "
            f"{len(BACKGROUNDS)}; name two to {len(BACKGROUNDS)} under textures"
        )
    return textures


def dealt_texture(seed: Sequence[int], number: int, textures: Sequence[str]) -> str:
    """Texture of the largest object of a picture, dealt in shuffled rounds: equally frequent in a run of any length.

    Parameters
    ----------
    seed
        Seed and number of the split.
    number
        Of the picture, in its split.
    """
    dealt, position = divmod(number, len(textures))
    # The last number keeps this apart from every picture's own generator.
    order = np.random.default_rng([*seed, dealt, 1]).permutation(len(textures))
    return textures[order[position]]


def dealt_background(
    seed: Sequence[int], number: int, texture: str, textures: Sequence[str], share: float | None
) -> str:
    """Background of a picture where backgrounds belong to textures, in the order in which both are listed.

    It depends on a generator of its own: everything else of a picture is as it would be without a shortcut.

    Parameters
    ----------
    seed, number
        As for `dealt_texture`.
    texture
        Of the picture's largest object, out of `textures`.
    share
        Share of pictures that have the background of their texture, the others any of the other textures'. None deals
        them evenly: in so many pictures in a row as there are pairs of texture and background, each pair comes once.
    """
    own, place, n = list(BACKGROUNDS), textures.index(texture), len(textures)
    if share is None:
        rounds = np.random.default_rng([*seed, number // n**2, 2]).permutation(n)
        away = int(rounds[number // n % n])
    else:
        generator = np.random.default_rng([*seed, number, 2])
        away = 0 if generator.random() < share else int(generator.integers(1, n))
    return own[(place + away) % n]


def group_name(texture: str, background: str) -> str:
    """Group of a picture: its class, and what the shortcut says."""
    return f"{texture} on {background}"
