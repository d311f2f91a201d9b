"""What the labels that a table or tar files carry amount to: ids and names."""

from __future__ import annotations

import re

from visae.data.classes import read_class_list
from visae.data.pictures import existing
from visae.errors import DataError

_INTEGER = re.compile(r"[+-]?\d+")
_LARGEST = 2**31 - 1


class Labels:
    """Collects every picture's label in a first pass, then tells each one's id and name.

    Where all labels are integers they are the ids, named by themselves unless `label_name` names them; else they are
    names, and ids count them in sorted order. Beside masks, labels are of the classes of the masks.

    Parameters
    ----------
    where
        Key and file, named in errors.
    classes_file
        The setting `classes`: list of the classes of masks.
    always_text
        Labels are names even where all look like integers.
    zero_based
        Whether that list counts from 0; labels beside it do so too.
    """

    def __init__(
        self, where: str, classes_file: str | None, always_text: bool = False, zero_based: bool = False
    ) -> None:
        self.where, self._text, self._shift = where, always_text, int(zero_based and classes_file is not None)
        self._of_masks = None
        if classes_file:
            self._of_masks = read_class_list(existing(classes_file, "classes", folder=False), zero_based)
        self._names: dict[str, str | None] = {}
        self._first = {"without": "", "with": "", "masked": ""}
        self._known: dict[str, tuple[int, str]] = {}

    def add(self, place: str, label: str | None, label_name: str | None, mask: str | None) -> None:
        """Take note of one picture; `place` says where it stands."""
        noted = ["without" if label is None else "with", *([] if mask is None else ["masked"])]
        for what in noted:
            self._first[what] = self._first[what] or place
        if label is None:
            if label_name is not None:
                raise DataError(f"{self.where}: {place} has a label_name and no label")
        elif self._names.setdefault(label, label_name) != label_name:
            raise DataError(
                f"{self.where}: {place}: the label {label} is called {label_name or '(nothing)'} here and "
                f"{self._names[label] or '(nothing)'} before; give it one label_name"
            )

    def classes(self) -> dict[int, str]:
        """Check what was noted, and return the classes by id.

        Raises
        ------
        DataError
            If some pictures have labels and others none, or labels, names and masks do not fit together.
        """
        first = self._first
        if first["with"] and first["without"]:
            raise DataError(
                f"{self.where}: {first['with']} has a label and {first['without']} has none; label all pictures or none"
            )
        if first["masked"] and self._of_masks is None:
            raise DataError(
                f"{self.where}: {first['masked']} has a mask; set classes to a file that lists the classes of masks, "
                "a line each: id, tab, name"
            )
        if self._of_masks is not None and not first["masked"]:
            raise DataError(f"{self.where}: no picture has a mask; leave out classes, which lists the classes of masks")
        numbered = not self._text and all(_INTEGER.fullmatch(label) for label in self._names)
        self._known = self._numbers() if numbered else self._texts()
        if self._of_masks is None:
            return dict(self._known.values())
        for label, known in self._known.items():
            if self._of_masks.get(known[0]) != known[1]:
                raise DataError(
                    f"{self.where}: the label {label} ({known[1]}) is none of the classes of masks; beside masks, "
                    "labels are ids or names of these; else make two data sets"
                )
        return self._of_masks

    def of(self, label: str | None) -> tuple[int, str] | tuple[None, None]:
        """Id and name of a label, once `classes` was called."""
        return (None, None) if label is None else self._known[label]

    def _numbers(self) -> dict[str, tuple[int, str]]:
        known: dict[str, tuple[int, str]] = {}
        by_name: dict[str, int] = {}
        for label, name in self._names.items():
            number = int(label) + self._shift
            if not 0 <= number <= _LARGEST:
                raise DataError(f"{self.where}: the label {label}: labels go from 0 to {_LARGEST}")
            chosen = name or (self._of_masks or {}).get(number, str(number))
            if by_name.setdefault(chosen, number) != number:
                raise DataError(f"{self.where}: the labels {by_name[chosen]} and {number} are both called {chosen}")
            known[label] = number, chosen
        if len(dict(known.values())) < len(by_name):
            raise DataError(f"{self.where}: a label has two names, written such as 7 and 07; write it in one way")
        return known

    def _texts(self) -> dict[str, tuple[int, str]]:
        if any(name is not None for name in self._names.values()):
            raise DataError(f"{self.where}: label_name names integer labels, but these are names already; leave it out")
        by_name = {name: number for number, name in (self._of_masks or dict(enumerate(sorted(self._names)))).items()}
        return {label: (by_name.get(label, -1), label) for label in self._names}
