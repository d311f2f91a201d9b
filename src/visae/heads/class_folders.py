"""Labelled pictures out of class folders: a part to learn from and a part to measure on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visae.config.settings import ImageFolderSettings
from visae.data.index import listed
from visae.data.pictures import existing
from visae.errors import DataError
from visae.notices import Notice

# Names of folders, in the order in which they are looked for.
_FIT = ("train", "training")
_MEASURE = ("val", "valid", "validation", "test", "testing")
# Where no folders say which is which.
_DRAWN_SHARE = 0.3


@dataclass(frozen=True)
class Labelled:
    """Paths of pictures and their classes, int64 (n,) from 0."""

    paths: list[str]
    classes: np.ndarray


@dataclass(frozen=True)
class ClassFolders:
    """What a root holds.

    Attributes
    ----------
    root
        The folder.
    names
        Of the classes.
    parts
        How the pictures were parted, in words.
    notices
        What was left out or odd.
    """

    root: str
    names: list[str]
    fit: Labelled
    measure: Labelled
    parts: str
    notices: list[Notice]


def read_class_folders(root: str, limit: int, seed: int) -> ClassFolders:
    """List the pictures of a root of `train` and `val` (or `test`) with one folder a class each, or of class folders.

    Class folders without parts are parted by the seed, 30 % to measure on.

    Parameters
    ----------
    root
        Folder; environment variables in it are replaced.
    limit
        Pictures of each part, as many of each class as can be; 0 takes all.

    Raises
    ------
    DataError
        If there is no such folder, a part is missing or has no pictures, there are fewer than two classes, or one has
        pictures to measure on alone.
    """
    folder = existing(os.path.expandvars(root), "root")
    splits = _splits(folder)
    settings = ImageFolderSettings(
        kind="image_folder", root=str(folder), splits=splits, val_share=_DRAWN_SHARE, test_share=0
    )
    listing = listed(settings, seed)
    found: dict[str, dict[int, list[str]]] = {"train": {}, "val": {}}
    for picture in listing.pictures:
        if picture.label is not None:
            found[picture.split].setdefault(picture.label, []).append(picture.path)
    fit, measure = found["train"], found["val"]
    if len(fit) < 2:
        raise DataError(
            f"root: {folder}: pictures of {len(fit)} class to learn from; a model is checked by telling two classes "
            "apart at least: make one folder a class"
        )
    if unknown := [listing.classes[label] for label in sorted(set(measure) - set(fit))]:
        raise DataError(
            f"root: {folder}: {', '.join(unknown)}: pictures to measure on and none to learn from; name the class "
            "folders of both parts alike"
        )
    if not measure:
        raise DataError(f"root: {folder}: no picture is left to measure on; add some, or folders train and val")
    labels = sorted(fit)
    generator = np.random.default_rng(seed)
    return ClassFolders(
        str(folder),
        [listing.classes[label] for label in labels],
        _chosen(fit, labels, limit, generator),
        _chosen(measure, labels, limit, generator),
        " and ".join(splits.values()) if splits else f"drawn by seed {seed}",
        list(listing.noticed.notices()),
    )


def _splits(root: Path) -> dict[str, str]:
    """Folders of the two parts; empty where the root holds class folders."""
    holding = {entry.name for entry in root.iterdir() if entry.is_dir() and _has_folders(entry)}
    fit, measure = (next((name for name in names if name in holding), None) for names in (_FIT, _MEASURE))
    if fit and measure:
        return {"train": fit, "val": measure}
    if fit or measure:
        raise DataError(
            f"root: {root}: {fit or measure} has class folders, but there is no {'val or test' if fit else 'train'} "
            "beside it; add it, or give the folder of the class folders itself, which is then parted by the seed"
        )
    return {}


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())


def _chosen(paths: dict[int, list[str]], labels: list[int], limit: int, generator: np.random.Generator) -> Labelled:
    """Up to `limit` pictures by chance, as many of each class as can be, class by class."""
    shuffled = {label: [paths[label][i] for i in generator.permutation(len(paths[label]))] for label in sorted(paths)}
    in_turns = sorted(
        ((turn, label) for label, known in shuffled.items() for turn in range(len(known))), key=lambda pair: pair[0]
    )
    taken = sorted((label, turn) for turn, label in (in_turns[:limit] if limit else in_turns))
    return Labelled(
        [shuffled[label][turn] for label, turn in taken], np.array([labels.index(label) for label, _ in taken])
    )
