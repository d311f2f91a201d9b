"""What the labels that a table or tar files carry amount to: ids and names."""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import Decimal

from visae.data.classes import check_several_classes, check_split_classes, composed, notice_lookalikes, read_class_list
from visae.data.noticed import Noticed
from visae.data.pictures import existing
from visae.errors import DataError

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)", re.ASCII | re.IGNORECASE)
_LARGEST = 2**31 - 1
# How a missing value is written by pandas, R, spreadsheets and databases.
_MISSING = frozenset(
    ("", "nan", "NaN", "-nan", "-NaN", "NAN", "NA", "<NA>", "N/A", "n/a", "#N/A", "#NA", "NaT", "None", "null", "NULL")
)


def is_missing(text: str) -> bool:
    """Whether a cell or label says that there is none, as in `NaN`."""
    return text.strip() in _MISSING


class Labels:
    """Collects every picture's label in a first pass, then tells each one's id and name.

    Where all labels are integers they are the ids, named by themselves unless `label_name` names them; else they are
    names, and ids count them in sorted order. Beside masks, labels are of the classes of the masks. Integers may be
    written as whole floats (`3.0`), as pandas does.

    Parameters
    ----------
    where
        Key and file, named in errors.
    cure
        What to do where labels are none.
    classes_file
        The setting `classes`: list of the classes of masks.
    always_text
        Labels are names even where all look like integers, unless `label_name` names them or one is written as a float.
    zero_based
        Whether that list counts from 0; labels beside it do so too.
    """

    def __init__(
        self, where: str, cure: str, classes_file: str | None, always_text: bool = False, zero_based: bool = False
    ) -> None:
        self.where, self._cure = where, cure
        self._text, self._shift = always_text, int(zero_based and classes_file is not None)
        self._of_masks = None
        if classes_file:
            self._of_masks = read_class_list(existing(classes_file, "classes", folder=False), zero_based)
        self._names: dict[str, str | None] = {}
        self._places: dict[str, str] = {}  # of the first picture with that label
        self._by_split: dict[str, set[str]] = defaultdict(set)
        self._n_labelled = 0
        self._first = {"without": "", "with": "", "masked": ""}
        self._known: dict[str, tuple[int, str]] = {}

    @property
    def seen(self) -> bool:
        """Whether any picture so far has a label."""
        return bool(self._names)

    def add(self, place: str, split: str, label: str | None, label_name: str | None, mask: str | None) -> None:
        """Take note of one picture; `place` says where it stands, `split` is empty where splits are drawn."""
        noted = ["without" if label is None else "with", *([] if mask is None else ["masked"])]
        for what in noted:
            self._first[what] = self._first[what] or place
        if label is None:
            if label_name is not None:
                raise DataError(f"{self.where}: {place} has a label_name and no label")
            return
        name = None if label_name is None else composed(label_name)
        self._places.setdefault(label, place)
        self._by_split[split].add(label)
        self._n_labelled += 1
        if self._names.setdefault(label, name) != name:
            raise DataError(
                f"{self.where}: {place}: the label {label} is called {name or '(nothing)'} here and "
                f"{self._names[label] or '(nothing)'} before; give it one label_name"
            )

    def classes(self, noticed: Noticed) -> dict[int, str]:
        """Check what was noted, and return the classes by id.

        Raises
        ------
        DataError
            If some pictures have labels and others none, all have the same, val has classes that train lacks, or
            labels, names and masks do not fit together.
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
        self._known = self._numbers(noticed) if self._are_numbers() else self._texts(noticed)
        found = dict(self._known.values())
        for label, known in self._known.items():
            if self._of_masks is not None and self._of_masks.get(known[0]) != known[1]:
                raise DataError(
                    f"{self.where}: the label {label} ({known[1]}) is none of the classes of masks; beside masks, "
                    "labels are ids or names of these; else make two data sets"
                )
        if self._n_labelled > 1:
            check_several_classes(found.values(), self.where, self._cure)
        by_split = {split: {self._known[label][1] for label in labels} for split, labels in self._by_split.items()}
        check_split_classes(by_split, self.where)
        notice_lookalikes(sorted(found.values()), noticed)
        return found if self._of_masks is None else self._of_masks

    def of(self, label: str | None) -> tuple[int, str] | tuple[None, None]:
        """Id and name of a label, once `classes` was called."""
        return (None, None) if label is None else self._known[label]

    def _are_numbers(self) -> bool:
        if not all(_NUMBER.fullmatch(label) for label in self._names):
            return False
        named = any(name is not None for name in self._names.values())
        return not self._text or named or any(not label.lstrip("+-").isdigit() for label in self._names)

    def _numbers(self, noticed: Noticed) -> dict[str, tuple[int, str]]:
        known: dict[str, tuple[int, str]] = {}
        by_name: dict[str, int] = {}
        for label, name in self._names.items():
            number = self._whole(label) + self._shift
            chosen = name or (self._of_masks or {}).get(number, str(number))
            if by_name.setdefault(chosen, number) != number:
                raise DataError(f"{self.where}: the labels {by_name[chosen]} and {number} are both called {chosen}")
            known[label] = number, chosen
        if len(dict(known.values())) < len(by_name):
            raise DataError(f"{self.where}: a label has two names, written such as 7 and 07; write it in one way")
        for label, (number, _) in known.items():
            if re.match(r"[+-]?0\d", label):
                text = f"labels with leading zeros are read as integers: {label} of {self._places[label]} is {number}"
                noticed.count("note", text, label)
                break
        return known

    def _whole(self, label: str) -> int:
        """Integer that a label is."""
        value, place = Decimal(label), self._places[label]
        if not 0 <= value <= _LARGEST:
            hint = "; where it stands for none, leave all labels out" if value == -1 else ""
            raise DataError(f"{self.where}: {place}: the label {label}: labels go from 0 to {_LARGEST}{hint}")
        if value % 1:
            raise DataError(
                f"{self.where}: {place}: the label {label} is a number but no integer; labels are integers "
                "(whole floats too) or names of classes"
            )
        return int(value)

    def _texts(self, noticed: Noticed) -> dict[str, tuple[int, str]]:
        numbers: dict[Decimal, str] = {}
        text = next((label for label in self._names if not _NUMBER.fullmatch(label)), None)
        for label, name in self._names.items():
            if name is not None:
                raise DataError(
                    f"{self.where}: label_name names integer labels, but these are names already, such as {text!r}; "
                    "leave it out"
                )
            if _NUMBER.fullmatch(label) and numbers.setdefault(Decimal(label), label) != label:
                other = numbers[Decimal(label)]
                raise DataError(
                    f"{self.where}: {self._places[label]}: the label {label}, and {other} of {self._places[other]}, "
                    "are one number written in two ways, but labels are names here; write them in one way"
                )
        if numbers and text is not None:
            noticed.count(
                "note",
                f"labels are taken for names, as {text!r} of {self._places[text]} is no integer; others are, such as "
                "{example}",
                next(iter(numbers.values())),
            )
        names = {label: composed(label) for label in self._names}
        known = self._of_masks or dict(enumerate(sorted(set(names.values()))))
        by_name = {name: number for number, name in known.items()}
        return {label: (by_name.get(name, -1), name) for label, name in names.items()}
