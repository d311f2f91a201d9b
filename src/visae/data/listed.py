"""List a data set that comes with lists of its pictures, classes and split, as CUB-200-2011 and NABirds do."""

from __future__ import annotations

from pathlib import Path

from visae.config.settings import ListedFolderSettings
from visae.data.classes import check_several_classes, check_split_classes, notice_lookalikes
from visae.data.noticed import Noticed
from visae.data.pictures import Listing, Picture, existing, in_order
from visae.data.walks import walked
from visae.errors import DataError

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
# What is 0 in train_test_split.txt is what results are measured on.
_SPLITS = {"1": "train", "0": "val"}


def list_listed_folder(settings: ListedFolderSettings) -> Listing:
    """List the pictures of `images.txt` in its order, train before val.

    Raises
    ------
    DataError
        If a list is missing, or the lists do not fit together.
    """
    root = existing(settings.root, "root")
    paths, labels, flags, names = (_read(file) for file in list_files(settings))
    images, of_classes, split = (root / name for name in LISTS[:3])
    by_split: dict[str, list[Picture]] = {}
    for key, path in paths.items():
        if key not in labels or labels[key] not in names:
            raise DataError(f"{of_classes}: the picture {key} of {images.name} has no class that is in {LISTS[3]}")
        if flags.get(key) not in _SPLITS:
            raise DataError(f"{split}: the picture {key} of {images.name} must have 1 (train) or 0 (val)")
        chosen = _SPLITS[flags[key]]
        found = Picture(f"{root / 'images' / path}", chosen, int(labels[key]), names[labels[key]])
        by_split.setdefault(chosen, []).append(found)
    noticed = Noticed()
    notice_lookalikes(names.values(), noticed)
    labelled = {split: {str(one.label_name) for one in of} for split, of in by_split.items()}
    check_split_classes(labelled, str(of_classes))
    cure = "take its images as an image_folder with labels: none"
    check_several_classes(set().union(*labelled.values()), str(of_classes), cure)
    _notice_unlisted(root / "images", set(paths.values()), noticed)
    return Listing(
        [picture for name in in_order(by_split) for picture in by_split[name]],
        {int(number): name for number, name in names.items()},
        noticed,
    )


def _notice_unlisted(images: Path, listed: set[str], noticed: Noticed) -> None:
    for path in walked(str(images), noticed, set()) if images.is_dir() else ():
        if path.removeprefix(f"{images}/") not in listed:
            noticed.leave_out("pictures that are in no list", path, level="warning")


def list_files(settings: ListedFolderSettings) -> list[Path]:
    """Files that decide what is listed; raises DataError where one is missing."""
    root = existing(settings.root, "root")
    return [existing(str(root / name), "root", folder=False) for name in LISTS]


def _read(path: Path) -> dict[str, str]:
    """Read lines of a key, a space, and the rest."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            key, _, rest = (part.strip() for part in line.strip().partition(" "))
            if not rest or key in found:
                raise DataError(f"{path}, line {number}: write a key that comes once, a space, and what belongs to it")
            if path.name == LISTS[3] and not key.isdecimal():
                raise DataError(f"{path}, line {number}: the id of a class is a number, not {key}")
            found[key] = rest
    return found
