"""The sections of data sets that are made on the spot: scenes, and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from visae.config.dataset_bases import DatasetSettings
from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class ScenesSettings(DatasetSettings):
    """Made on the spot: shapes with photographic textures on photographs, every cause known."""

    kind: Literal["scenes"]
    train: int = setting("Pictures to train on.", 480, minimum=1)
    val: int = setting("Pictures to measure on.", 120, minimum=1)
    test: int = setting("Pictures kept apart.", 120, minimum=1)
    image_size: int = setting("Side of a picture in pixels.", 224, minimum=32)
    textures: list[Literal["brick", "grass", "gravel", "coins", "print", "fur", "tissue", "stars"]] = setting(
        "Textures that the largest object can have, which are the classes of pictures; empty: all eight.", []
    )
    shortcut: float = setting(
        "Share of the pictures of train whose background is the one that belongs to their class, of which pictures "
        "then have groups such as `brick on camera`; in val and test backgrounds tell nothing of the class. Needs two "
        "to six `textures`. 0: backgrounds tell nothing anywhere, and there are no groups.",
        0.0,
        minimum=0,
        maximum=1,
    )

    @property
    def has_masks(self) -> bool:
        """Always."""
        return True

    @property
    def may_have_labels(self) -> bool:
        """Always."""
        return True

    @property
    def may_have_groups(self) -> bool:
        """Where backgrounds go with classes."""
        return self.shortcut > 0


Cause = Literal["texture", "shape", "tint", "place", "background", "lighting"]
CAUSES: tuple[str, ...] = get_args(Cause)
"""What can be changed in a made picture."""


@dataclass(frozen=True, kw_only=True)
class ScenePairsSettings(DatasetSettings):
    """Made on the spot: scenes, each beside pictures that differ from it in exactly one cause."""

    kind: Literal["scene_pairs"]
    train: int = setting("Scenes to find with; each is a picture, and one more for every cause.", 120, minimum=2)
    val: int = setting("Scenes to measure on.", 120, minimum=2)
    image_size: int = setting("Side of a picture in pixels.", 224, minimum=32)
    causes: list[Cause] = setting(
        "What is changed: of the largest object its `texture`, `shape`, `tint` or `place`, the `background`, or the "
        "direction of the light with all shadows, `lighting`.",
        list(CAUSES),
        not_empty=True,
    )

    @property
    def n_pictures(self) -> int:
        """Pictures that are made."""
        return (self.train + self.val) * (1 + len(set(self.causes)))

    @property
    def may_have_labels(self) -> bool:
        """Always: the texture of the largest object."""
        return True
