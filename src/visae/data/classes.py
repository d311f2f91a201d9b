"""The names of classes: lists on disk, and what labels of a table or tar amount to."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from visae.data.noticed import Noticed
from visae.data.pictures import existing
from visae.errors import DataError
from visae.notices import first_of

_LARGEST_CLASS_ID = 32_767  # labels are kept as int16
_NAMED = 5  # in errors
_ADE20K_CLASSES = "objectInfo150.txt"


def lines_of(path: Path) -> list[str]:
    """Lines of a list in UTF-8; raises DataError where it is in another encoding."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: it is no UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_class_names(path: Path, zero_based: bool = False) -> dict[int, str]:
    """Read `classes.txt`: a line a class, its id (from 1), a tab, its name.

    Parameters
    ----------
    zero_based
        Whether ids in the list are numbered from 0, as in the masks; those that are returned are one more.

    Raises
    ------
    DataError
        If a line is not of that form, or an id or name comes twice.
    """
    classes: dict[int, str] = {}
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            id_text, _, name = (part.strip() for part in line.partition("\t"))
            _add_class(classes, id_text, name, f"{path}, line {number}", zero_based)
    if not classes:
        raise DataError(f"{path}: no classes; write a line a class: its id from 1, a tab, its name")
    if zero_based and 1 not in classes:
        raise DataError(
            f"{path}: zero_based says that 0 is a class in the masks, but no line has the id 0; number the classes as "
            "the masks do, from 0"
        )
    return classes


def _add_class(classes: dict[int, str], id_text: str, name: str, place: str, zero_based: bool = False) -> None:
    if not id_text.isdecimal() or not name:
        raise DataError(f"{place}: a class is its id (a number), a tab and its name")
    number, name = int(id_text) + zero_based, composed(name)
    if number == 0:
        raise DataError(
            f"{place}: id 0: ids go from 1 to {_LARGEST_CLASS_ID}, and 0 stands for unlabelled pixels; if masks are "
            "numbered from 0 too, so that 0 is a class in them, set zero_based: true"
        )
    if number > _LARGEST_CLASS_ID:
        raise DataError(f"{place}: id {number}: ids go up to {_LARGEST_CLASS_ID}")
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


def read_class_list(path: Path, zero_based: bool = False) -> dict[int, str]:
    """Read the classes of masks by id, from classes.txt or ADE20K's own list; raises as `read_class_names` does.

    ADE20K's own list counts from 1 whatever the masks do: for masks that were reduced to count from 0, its ids are
    right as they are.
    """
    if path.name != _ADE20K_CLASSES:
        return read_class_names(path, zero_based)
    classes: dict[int, str] = {}
    # A header, then a class a line: its id first, shares and counts, its names last.
    for number, line in enumerate(lines_of(path)[1:], start=2):
        if line.strip():
            columns = [column.strip() for column in line.split("\t")]
            _add_class(classes, columns[0], columns[-1], f"{path}, line {number}")
    return classes


def composed(name: str) -> str:
    """Write a class's name with composed letters: file systems hand out `ü` in one piece or in two."""
    return unicodedata.normalize("NFC", name)


def notice_lookalikes(names: Iterable[str], noticed: Noticed) -> None:
    """Warn of names of classes that a person may take for one: they differ in case, spaces or invisible characters."""
    seen: dict[str, str] = {}
    for name in names:
        shape = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
        other = seen.setdefault(" ".join(shape.casefold().split()), name)
        if other != name:
            noticed.count(
                "warning",
                f"the classes {other!r} and {name!r} look like one and are taken for two; rename one if they are not",
                name,
            )


def check_several_classes(names: Iterable[str], where: str, cure: str) -> None:
    """Refuse labels that tell nothing apart, with what to do where they are none."""
    found = set(names)
    if len(found) == 1:
        raise DataError(f"{where}: all pictures are of one class, {found.pop()}; if that is no class, {cure}")


def check_split_classes(by_split: Mapping[str, Iterable[str]], where: str) -> None:
    """Refuse labels that were missed: classes of val that train does not have.

    Parameters
    ----------
    by_split
        Names of classes by split.
    where
        Key and file, named in the error.
    """
    if not {"train", "val"} <= by_split.keys():
        return
    unknown = sorted(set(by_split["val"]) - set(by_split["train"]))
    if unknown:
        named = first_of(map(repr, unknown), _NAMED)
        known = ", ".join(map(repr, sorted(by_split["train"])[:_NAMED]))
        raise DataError(
            f"{where}: val has classes that train does not have: {named} (train has {known}, ...); nothing can "
            "be learned of them: name classes alike in both, or leave these out"
        )
