"""List the pictures of a user's folders with their splits, labels and masks; nothing is decoded here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from visae.config.settings import ImageFolderSettings, SegmentationFolderSettings
from visae.data.classes import (
    check_several_classes,
    check_split_classes,
    class_list_file,
    composed,
    notice_lookalikes,
    read_class_list,
)
from visae.data.images import SUFFIXES
from visae.data.noticed import Noticed
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits, in_order
from visae.data.walks import walked, wanted_names
from visae.errors import DataError

_BESIDE = "pictures beside the class folders"
_DEEPER = (
    "{n} pictures lie deeper than their class folder, such as {example}; the topmost folder is taken for their class"
)


def list_image_folder(settings: ImageFolderSettings, seed: int) -> Listing:
    """List pictures in folders, one folder a class unless `labels` is `none`.

    Without `splits` a picture's split is drawn from the seed and its own relative path: pictures that are added later
    move no other.

    Raises
    ------
    DataError
        If a folder is missing or has no pictures, or its class folders are not what was meant: one alone, or such in
        val as train does not have.
    """
    root = existing(settings.root, "root")
    _check_splits(settings.splits)
    if not settings.splits:
        check_shares(settings)
    by_split = settings.splits or {"": "."}
    folders = {split: _existing_folder(root, name, f"splits: {split}") for split, name in by_split.items()}
    noticed = Noticed()
    classes = {}
    if settings.labels == "folder":
        classes = {split: _class_folders(folder, noticed) for split, folder in folders.items()}
        check_split_classes(classes, f"splits of {root}")
    names = sorted({name for found in classes.values() for name in found})
    check_several_classes(names, f"root: {root}", "set labels: none")
    notice_lookalikes(names, noticed)
    numbers = {name: number for number, name in enumerate(names)}

    def found(split: str, noticed: Noticed) -> Iterator[Picture]:
        if settings.labels == "none":
            for path in _pictures(folders[split], noticed):
                yield Picture(path, split)
            return
        of_folders = {folder: name for name, written in classes[split].items() for folder in written}
        # The slash puts folders in the order of the paths of their pictures: `a-b/1.png` before `a/1.png`.
        for folder in sorted(of_folders, key=lambda name: f"{name}/"):
            name = of_folders[folder]
            for path in _pictures(folders[split] / folder, noticed):
                if os.path.dirname(path) != f"{folders[split] / folder}":
                    noticed.count("note", _DEEPER, path)
                yield Picture(path, split, numbers[name], name)

    def with_keys() -> Iterator[tuple[str, Picture]]:
        for picture in found("", noticed.first_walk()):
            yield _below(picture.path, root), picture

    by_id = {number: name for name, number in numbers.items()}
    if settings.splits:
        return Listing((picture for split in in_order(folders) for picture in found(split, noticed)), by_id, noticed)
    return Listing(in_drawn_splits(with_keys, settings, seed, f"root: {root}"), by_id, noticed)


def list_segmentation_folder(settings: SegmentationFolderSettings) -> Listing:
    """List pictures below `images` with the masks of the same name below `annotations`.

    Raises
    ------
    DataError
        If a folder or the list of classes is missing, or a folder has no pictures.
    """
    root = existing(settings.root, "root")
    _check_splits(settings.splits)
    classes = read_class_list(class_list_file(settings.root), settings.zero_based)
    noticed = Noticed()
    notice_lookalikes(classes.values(), noticed)
    folders = {}
    for split in in_order(settings.splits):
        name = settings.splits[split]
        images = _existing_folder(root / "images", name, f"splits: {split}")
        folders[split] = images, _existing_folder(root / "annotations", name, f"splits: {split}")

    def found() -> Iterator[Picture]:
        for split, (images, masks) in folders.items():
            for path in _pictures(images, noticed):
                stem, _ = os.path.splitext(_below(path, images))
                yield Picture(path, split, mask=f"{masks}/{stem}.png")
            _notice_lone_masks(str(images), str(masks), noticed)

    return Listing(found(), classes, noticed)


def _notice_lone_masks(images: str, masks: str, noticed: Noticed) -> None:
    """Count what lies among the masks and is none of a picture; of all names, those in one folder are held."""
    folder, stems = "", set[str]()
    for path in walked(masks, noticed, set()):
        if os.path.dirname(path) != folder:
            folder = os.path.dirname(path)
            beside = images + folder.removeprefix(masks)
            stems = {os.path.splitext(name)[0] for name in os.listdir(beside)} if os.path.isdir(beside) else set()
        stem, suffix = os.path.splitext(os.path.basename(path))
        if suffix != ".png":
            noticed.leave_out("pictures among the masks that are no .png", path)
        elif stem not in stems:
            noticed.leave_out("masks without a picture", path)


def _existing_folder(root: Path, name: str, key: str) -> Path:
    folder = Path(os.path.abspath(root / name))
    if not folder.is_dir():
        raise DataError(f"{key}: {folder}: there is no such folder")
    return folder


def _check_splits(splits: dict[str, str]) -> None:
    folders = [os.path.normpath(name) for name in splits.values()]
    if len(set(folders)) < len(folders):
        raise DataError(f"splits: {splits}: two splits name the same folder, so that they would hold the same pictures")


def _class_folders(folder: Path, noticed: Noticed) -> dict[str, list[str]]:
    """Names of the classes in a folder, and the folders of each: more than one where letters are composed unlike."""
    found: dict[str, list[str]] = {}
    for name in wanted_names(str(folder), noticed, _BESIDE):
        if name.endswith("/"):
            found.setdefault(composed(name[:-1]), []).append(name[:-1])
    if not found:
        raise DataError(f"{folder}: it has no class folders; make one a class, or set labels: none")
    return found


def _pictures(folder: Path, noticed: Noticed) -> Iterator[str]:
    """Find pictures at any depth, by sorted path; links are followed, but never in a circle."""
    found = False
    for path in walked(str(folder), noticed, set()):
        found = True
        yield path
    if not found:
        raise DataError(f"{folder}: it has no pictures ({', '.join(sorted(SUFFIXES))}); remove the folder or fill it")


def _below(path: str, folder: Path) -> str:
    """Path below a folder."""
    return path.removeprefix(f"{str(folder).rstrip('/')}/")
