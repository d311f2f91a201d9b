"""What is seen in tars beside pictures, masks and labels: what would be dropped, and what is odd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from visae.data.noticed import Noticed
from visae.errors import DataError

# Parts of members' names, and keys of JSON, that are labels elsewhere. Of the former, the second may be anything.
LABELS = frozenset(("cls", "cls2", "class", "classes", "label", "labels", "lbl", "target", "category"))
PERHAPS = frozenset(("id", "idx", "inx", "index", "count", "txt", "text", "csv", "tsv", "jsonl"))
_KEYS = LABELS | {"class_id", "class_name", "classname", "category_id", "category_name", "label_id", "target_id", "y"}
RULE = "a key ends at the first dot of a member's name (WebDataset's rule)"
_DOTTED = (
    "{n} pictures have more dots in their name than that of their suffix, such as {example}; " + RULE + ", and each is "
    "the only picture of its key"
)


@dataclass
class Findings:
    """What is seen in tars beside samples; examples are places of members.

    Attributes
    ----------
    noticed
        Counts what is left out or odd.
    plain, dotted
        Example of a picture `KEY.png`, and of one such as `KEY.input.png`.
    orphan, n_orphans
        Labels under keys that have no picture.
    unread, n_unread
        Members that are no labels here, but perhaps were meant as such.
    picture
        Example of one without a label.
    """

    noticed: Noticed
    plain: str = ""
    dotted: str = ""
    orphan: str = ""
    n_orphans: int = 0
    unread: str = ""
    n_unread: int = 0
    picture: str = ""
    keys: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add_orphan(self, place: str) -> None:
        """Count a label under a key that has no picture."""
        self.n_orphans, self.orphan = self.n_orphans + 1, self.orphan or place

    def add_unread(self, place: str) -> None:
        """Count a member that is perhaps a label, and is not read."""
        self.n_unread, self.unread = self.n_unread + 1, self.unread or place

    def add_picture(self, place: str, is_dotted: bool, is_labelled: bool) -> None:
        """Count a picture."""
        if is_dotted:
            self.noticed.count("note", _DOTTED, place)
            self.dotted = self.dotted or place
        else:
            self.plain = self.plain or place
        if not is_labelled:
            self.picture = self.picture or place

    def add_keys(self, said: dict[str, Any], place: str) -> None:
        """Count keys of JSON that may be the label under another name, or one level deeper."""
        deeper = (
            (f"{key}.{inner}", inner) for key, value in said.items() if isinstance(value, dict) for inner in value
        )
        for shown, key in (*((key, key) for key in said), *deeper):
            if key.casefold() in _KEYS:
                n, example = self.keys.get(shown, (0, place))
                self.keys[shown] = n + 1, example

    def check(self, where: str, any_label: bool) -> None:
        """Refuse tars whose labels would be dropped, and notice what is odd; `any_label` is whether one was read."""
        advice = "write it as KEY.cls, or as label in KEY.json, beside KEY.png; or set labels: none"
        if not any_label and self.n_orphans:
            raise DataError(
                f"{where}: no picture has a label, such as {self.picture}, but {self.n_orphans} labels belong to keys "
                f"without a picture, such as {self.orphan}; {RULE}, its folder included: {advice}"
            )
        if not any_label and self.n_unread:
            raise DataError(
                f"{where}: no picture has a label, but {self.n_unread} members that are not read may be labels, such "
                f"as {self.unread}; {advice}"
            )
        if self.n_orphans:
            text = "{n} labels belong to keys that have no picture, such as {example}"
            self.noticed.count("warning", text, self.orphan, self.n_orphans)
        if self.plain and self.dotted:
            text = (
                f"pictures are of unlike kinds, such as {self.plain} and {self.dotted}: one may be no picture but a map"
            )
            self.noticed.count("warning", text, self.dotted)
        for key, (n, example) in self.keys.items():
            text = (
                f"{{n}} members have the key {key!r} and no label, such as {{example}}; labels are read of label alone"
            )
            self.noticed.count("note" if any_label else "warning", text, example, n)
