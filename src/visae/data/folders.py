"""List the pictures of a user's folders with their splits, labels and masks; nothing is decoded here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from visae.config.settings import ImageFolderSettings, SegmentationFolderSettings
from visae.data.classes import class_list_file, read_class_list
from visae.data.images import SUFFIXES
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits, in_order
from visae.errors import DataError


def list_image_folder(settings: ImageFolderSettings, seed: int) -> Listing:
    """List pictures in folders, one folder a class unless `labels` is `none`.

    Without `splits` a picture's split is drawn from the seed and its own relative path: pictures that are added later
    move no other.

    Raises
    ------
    DataError
        If a folder is missing or has no pictures.
    """
    root = existing(settings.root, "root")
    _check_splits(settings.splits)
    if not settings.splits:
        check_shares(settings)
    by_split = settings.splits or {"": "."}
    folders = {split: _existing_folder(root, name, f"splits: {split}") for split, name in by_split.items()}
    by_class = settings.labels == "folder"
    names = sorted({name for folder in folders.values() for name in _class_names(folder)}) if by_class else []
    numbers = {name: number for number, name in enumerate(names)}

    def found(split: str) -> Iterator[Picture]:
        if not by_class:
            for path in _pictures(folders[split]):
                yield Picture(path, split)
            return
        # The slash puts folders in the order of the paths of their pictures: `a-b/1.png` before `a/1.png`.
        for name in sorted(_class_names(folders[split]), key=lambda name: f"{name}/"):
            for path in _pictures(folders[split] / name):
                yield Picture(path, split, numbers[name], name)

    def with_keys() -> Iterator[tuple[str, Picture]]:
        for picture in found(""):
            yield _below(picture.path, root), picture

    classes = {number: name for name, number in numbers.items()}
    if settings.splits:
        return Listing((picture for split in in_order(folders) for picture in found(split)), classes)
    return Listing(in_drawn_splits(with_keys, settings, seed, f"root: {root}"), classes)


def list_segmentation_folder(settings: SegmentationFolderSettings) -> Listing:
    """List pictures below `images` with the masks of the same name below `annotations`.

    Raises
    ------
    DataError
        If a folder or the list of classes is missing, or a folder has no pictures.
    """
    root = existing(settings.root, "root")
    _check_splits(settings.splits)
    classes = read_class_list(class_list_file(settings.root))
    folders = {}
    for split in in_order(settings.splits):
        name = settings.splits[split]
        images = _existing_folder(root / "images", name, f"splits: {split}")
        folders[split] = images, _existing_folder(root / "annotations", name, f"splits: {split}")

    def found() -> Iterator[Picture]:
        for split, (images, masks) in folders.items():
            for path in _pictures(images):
                stem, _ = os.path.splitext(_below(path, images))
                yield Picture(path, split, mask=f"{masks}/{stem}.png")

    return Listing(found(), classes)


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


def _pictures(folder: Path) -> Iterator[str]:
    """Find pictures at any depth, by sorted path; hidden ones left out, links followed but never in a circle."""
    found = False
    for path in _walk(str(folder), set()):
        found = True
        yield path
    if not found:
        raise DataError(f"{folder}: it has no pictures ({', '.join(sorted(SUFFIXES))}); remove the folder or fill it")


def _walk(folder: str, seen: set[str]) -> Iterator[str]:
    """Walk depth first; of all names, those in one folder are held, and in its subfolder while that is walked."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            # The slash sorts a folder where its pictures' paths belong.
            names = sorted(name for entry in entries if (name := _wanted(entry)))
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read: {error.strerror}") from error
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith("/"):
            yield from _walk(path[:-1], seen)
        else:
            yield path


def _wanted(entry: os.DirEntry[str]) -> str:
    """Name of a picture, or of a folder with a slash; empty for what is neither."""
    if entry.name.startswith("."):
        return ""
    if entry.is_dir():
        return f"{entry.name}/"
    return entry.name if os.path.splitext(entry.name)[1].lower() in SUFFIXES else ""


def _below(path: str, folder: Path) -> str:
    """Path below a folder."""
    return path.removeprefix(f"{str(folder).rstrip('/')}/")
