"""List the pictures of a user's folders with their splits, labels and masks; nothing is decoded here."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from visae.config.settings import ImageFolderSettings, SegmentationFolderSettings
from visae.data.images import SUFFIXES
from visae.errors import DataError

_LARGEST_CLASS_ID = 32_767  # labels are kept as int16
_ADE20K_CLASSES = "objectInfo150.txt"


@dataclass(frozen=True)
class Picture:
    """One picture as it was found.

    Attributes
    ----------
    file
        Absolute path.
    relative
        Path below the data set's root, with forward slashes: what it is sorted and drawn by.
    """

    file: Path
    relative: str
    split: str
    label: int | None = None
    label_name: str | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Listing:
    """All pictures of a data set, and its classes by id."""

    pictures: list[Picture]
    classes: dict[int, str] = field(default_factory=dict)


def list_image_folder(settings: ImageFolderSettings, seed: int) -> Listing:
    """List pictures in folders, one folder a class unless `labels` is `none`.

    Without `splits` a picture's split is drawn from the seed and its own relative path: pictures that are added later
    move no other.

    Raises
    ------
    DataError
        If a folder is missing or has no pictures.
    """
    root = _existing_root(settings.root)
    _check_splits(settings.splits)
    if not settings.splits and settings.val_share + settings.test_share >= 1:
        raise DataError("val_share and test_share: together they leave nothing for train; make their sum less than 1")
    by_split = settings.splits or {"": "."}
    folders = {split: _existing_folder(root, name, f"splits: {split}") for split, name in by_split.items()}
    by_class = settings.labels == "folder"
    names = sorted({name for folder in folders.values() for name in _class_names(folder)}) if by_class else []
    numbers = {name: number for number, name in enumerate(names)}
    pictures = []
    for split, folder in folders.items():
        for file in _pictures_by_class(folder) if by_class else _pictures(folder):
            relative = file.relative_to(root).as_posix()
            name = file.relative_to(folder).parts[0] if by_class else None
            drawn = split or _drawn_split(relative, seed, settings.val_share, settings.test_share)
            pictures.append(Picture(file, relative, drawn, numbers[name] if name else None, name))
    if not settings.splits and all(picture.split != "train" for picture in pictures):
        raise DataError(
            f"root: {root}: of its {len(pictures)} pictures none was drawn for train; add some or set splits"
        )
    return Listing(pictures, {number: name for name, number in numbers.items()})


def list_segmentation_folder(settings: SegmentationFolderSettings) -> Listing:
    """List pictures below `images` with the masks of the same name below `annotations`.

    Raises
    ------
    DataError
        If a folder or the list of classes is missing, or a folder has no pictures.
    """
    root = _existing_root(settings.root)
    _check_splits(settings.splits)
    classes = _classes(class_list_file(settings.root))
    pictures = []
    for split, name in settings.splits.items():
        images = _existing_folder(root / "images", name, f"splits: {split}")
        masks = _existing_folder(root / "annotations", name, f"splits: {split}")
        for file in _pictures(images):
            mask = masks / file.relative_to(images).with_suffix(".png")
            pictures.append(Picture(file, file.relative_to(root).as_posix(), split, mask=mask))
    return Listing(pictures, classes)


def read_class_names(path: Path) -> dict[int, str]:
    """Read `classes.txt`: a line a class, its id (from 1), a tab, its name.

    Raises
    ------
    DataError
        If a line is not of that form, or an id or name comes twice.
    """
    classes: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            id_text, _, name = (part.strip() for part in line.partition("\t"))
            _add_class(classes, id_text, name, f"{path}, line {number}")
    if not classes:
        raise DataError(f"{path}: no classes; write a line a class: its id from 1, a tab, its name")
    return classes


def _add_class(classes: dict[int, str], id_text: str, name: str, place: str) -> None:
    if not id_text.isdecimal() or not name:
        raise DataError(f"{place}: a class is its id (a number), a tab and its name")
    number = int(id_text)
    if not 1 <= number <= _LARGEST_CLASS_ID:
        raise DataError(f"{place}: id {number}: ids go from 1 to {_LARGEST_CLASS_ID}; 0 stands for unlabelled pixels")
    if number in classes or name in classes.values():
        raise DataError(f"{place}: the id {number} or the name {name} comes twice")
    classes[number] = name


def class_list_file(root: str) -> Path:
    """Find the file that lists a segmentation data set's classes: classes.txt, or ADE20K's own list.

    Raises
    ------
    DataError
        If the data set has neither, or does not exist.
    """
    folder = _existing_root(root)
    path = folder / "classes.txt"
    if path.is_file():
        return path
    if not (folder / _ADE20K_CLASSES).is_file():
        raise DataError(f"{path} is missing: it lists the classes, a line each: id, tab, name")
    return folder / _ADE20K_CLASSES


def _classes(path: Path) -> dict[int, str]:
    if path.name != _ADE20K_CLASSES:
        return read_class_names(path)
    classes: dict[int, str] = {}
    # A header, then a class a line: its id first, shares and counts, its names last.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()[1:], start=2):
        if line.strip():
            columns = [column.strip() for column in line.split("\t")]
            _add_class(classes, columns[0], columns[-1], f"{path}, line {number}")
    return classes


def _existing_root(root: str) -> Path:
    if not root or "${" in root:
        named = re.findall(r"\$\{([^}]*)\}?", root)
        variable = f" ({', '.join(named)})" if named else ""
        raise DataError(
            f"root: {root or '(empty)'}: the environment variable in it{variable} is not set; export it first"
        )
    path = Path(os.path.abspath(Path(root).expanduser()))
    if not path.is_dir():
        raise DataError(f"root: {path}: there is no such folder; set root to where the pictures are")
    return path


def _existing_folder(root: Path, name: str, key: str) -> Path:
    folder = Path(os.path.abspath(root / name))
    if not folder.is_dir():
        raise DataError(f"{key}: {folder}: there is no such folder")
    return folder


def _check_splits(splits: dict[str, str]) -> None:
    folders = [os.path.normpath(name) for name in splits.values()]
    if len(set(folders)) < len(folders):
        raise DataError(f"splits: {splits}: two splits name the same folder, so that they would hold the same pictures")


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"{folder}: it has no class folders; make one a class, or set labels: none")
    return names


def _pictures_by_class(folder: Path) -> Iterator[Path]:
    for name in _class_names(folder):
        yield from _pictures(folder / name)


def _pictures(folder: Path) -> list[Path]:
    """All pictures at any depth, sorted; hidden ones left out, links followed but never in a circle."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        found += [Path(where, name) for name in names if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    if not found:
        raise DataError(f"{folder}: it has no pictures ({', '.join(sorted(SUFFIXES))}); remove the folder or fill it")
    return sorted(found)


def _drawn_split(relative: str, seed: int, val_share: float, test_share: float) -> str:
    digest = hashlib.sha256(f"{seed}:{relative}".encode(errors="surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < val_share:
        return "val"
    return "test" if place < val_share + test_share else "train"
