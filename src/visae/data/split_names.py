"""Names of splits that people write, and what visae takes them for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from visae.errors import DataError
from visae.notices import Notice

_ROLES = {
    "train": ("train", "training", "trn", "tr"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval"),
    "test": ("test", "testing", "tst"),
}
_NEEDED = {"train": "nothing can be learned on it", "val": "nothing can be measured on it"}


@dataclass(frozen=True)
class Splits:
    """What is learned or chosen on, and what is measured on.

    Attributes
    ----------
    fit_split, measure_split
        Split to choose on, and to measure on.
    """

    fit_split: str = "train"
    measure_split: str = "val"

    def __iter__(self) -> Iterator[str]:
        return iter((self.fit_split, self.measure_split))


def check_split_name(split: str, place: str) -> None:
    """Refuse a name such as `Val` or `validation`, of which nothing would be measured; `place` is where it stands."""
    for role, names in _ROLES.items():
        if split != role and split.casefold() in names:
            raise DataError(
                f"{place}: the split {split!r} looks like {role}, but visae learns and measures on train and val by "
                f"these names; write {role}, or another name if it is not meant"
            )


def missing_splits(splits: Collection[str]) -> Iterator[Notice]:
    """Say that no picture is in train or val; sets that are only trained on, or only measured on, are right so."""
    for split in _NEEDED.keys() - set(splits):
        yield Notice("note", f"no picture is in {split}: {_NEEDED[split]} (splits: {', '.join(sorted(splits))})")
