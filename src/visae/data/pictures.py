"""What all kinds of data sets are listed as, and how splits are drawn."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from visae.config.settings import DrawnSettings
from visae.data.noticed import Noticed
from visae.errors import DataError

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as it was found.

    Attributes
    ----------
    path
        Absolute path, or a locator within a tar.
    mask
        The same for its mask.
    pair, cause, region
        What it shares with the pictures that it differs from in one cause, that cause (none in the base picture), and
        the picture of where (`visae.data.pairs`).
    group
        Name of the group that it belongs to.
    """

    path: str
    split: str
    label: int | None = None
    label_name: str | None = None
    mask: str | None = None
    pair: str | None = None
    cause: str | None = None
    region: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """The pictures of a data set in the order of their ids, found as one iterates, and its classes by id.

    Attributes
    ----------
    noticed
        What is left out or odd; whole once all pictures were iterated.
    """

    pictures: Iterable[Picture]
    classes: dict[int, str] = field(default_factory=dict)
    noticed: Noticed = field(default_factory=Noticed)


def in_order(splits: Iterable[str]) -> list[str]:
    """Sort names of splits: train, val, test, then others."""
    return sorted(splits, key=lambda name: (_SPLITS.index(name) if name in _SPLITS else len(_SPLITS), name))


def check_shares(settings: DrawnSettings) -> None:
    """Refuse shares that leave nothing for train."""
    if settings.val_share + settings.test_share >= 1:
        raise DataError("val_share and test_share: together they leave nothing for train; make their sum less than 1")


def in_drawn_splits(
    walk: Callable[[], Iterable[tuple[str, Picture]]], settings: DrawnSettings, seed: int, place: str
) -> Iterator[Picture]:
    """Yield pictures split by split, each drawn from the seed and its own key: later pictures move no other.

    All are walked once a split, because to sort them they would have to be held: a walk that notices things does so the
    first time only (`Noticed.first_walk`).

    Parameters
    ----------
    walk
        Starts a walk over pairs of a key and a picture.
    place
        Key and file that hold the pictures, for the error where none is drawn for train.
    """
    for split in _SPLITS:
        n_seen = n_drawn = 0
        if split == "train" or getattr(settings, f"{split}_share") > 0:
            for key, picture in walk():
                n_seen += 1
                if _drawn_split(key, seed, settings.val_share, settings.test_share) == split:
                    n_drawn += 1
                    yield replace(picture, split=split)
        if split == "train" and not n_drawn:
            raise DataError(f"{place}: of its {n_seen} pictures none was drawn for train; add some or set splits")


def _drawn_split(key: str, seed: int, val_share: float, test_share: float) -> str:
    digest = hashlib.sha256(f"{seed}:{key}".encode(errors="surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < val_share:
        return "val"
    return "test" if place < val_share + test_share else "train"


def existing(text: str, key: str, folder: bool = True) -> Path:
    """Absolute path of the folder or file that a key names.

    Raises
    ------
    DataError
        If it does not exist, or has an environment variable that is not set.
    """
    if not text or "${" in text:
        named = re.findall(r"\$\{([^}]*)\}?", text)
        variable = f" ({', '.join(named)})" if named else ""
        raise DataError(
            f"{key}: {text or '(empty)'}: the environment variable in it{variable} is not set; export it first"
        )
    path = Path(os.path.abspath(Path(text).expanduser()))
    if folder and not path.is_dir():
        raise DataError(f"{key}: {path}: there is no such folder; set {key} to where the pictures are")
    if not folder and not path.is_file():
        raise DataError(f"{key}: {path}: there is no such file")
    return path
