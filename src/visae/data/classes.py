"""The names of classes: lists on disk, and what labels of a table or tar amount to."""

from __future__ import annotations

from pathlib import Path

from visae.data.pictures import existing
from visae.errors import DataError

_LARGEST_CLASS_ID = 32_767  # labels are kept as int16
_ADE20K_CLASSES = "objectInfo150.txt"


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
    folder = existing(root, "root")
    path = folder / "classes.txt"
    if path.is_file():
        return path
    if not (folder / _ADE20K_CLASSES).is_file():
        raise DataError(f"{path} is missing: it lists the classes, a line each: id, tab, name")
    return folder / _ADE20K_CLASSES


def read_class_list(path: Path) -> dict[int, str]:
    """Read the classes of masks by id, from classes.txt or ADE20K's own list; raises as `read_class_names` does."""
    if path.name != _ADE20K_CLASSES:
        return read_class_names(path)
    classes: dict[int, str] = {}
    # A header, then a class a line: its id first, shares and counts, its names last.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines()[1:], start=2):
        if line.strip():
            columns = [column.strip() for column in line.split("\t")]
            _add_class(classes, columns[0], columns[-1], f"{path}, line {number}")
    return classes
