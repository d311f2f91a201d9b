"""What the members of one key of a tar amount to: a picture, its mask, and its label."""

from __future__ import annotations

import itertools
import json
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from visae.data.images import SUFFIXES
from visae.data.labels import is_missing
from visae.data.locators import locator
from visae.data.tar_findings import LABELS, PERHAPS, RULE, Findings
from visae.data.tar_members import content, key_and_kind, members
from visae.data.walks import may_be_missed
from visae.errors import DataError
from visae.notices import first_of

_MASKS = ("mask", "seg")
_ELSEWHERE = (
    "{n} labels stand under another prefix than their picture, such as {example}; they are taken, as each is the only "
    "one of its key"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """The members of one key: locators of picture and mask, and what is said of the label."""

    key: str
    picture: str
    mask: str | None
    label: str | None
    label_name: str | None


def samples(tar: Path, findings: Findings, with_labels: bool) -> Iterator[Sample]:
    """Read the headers of a tar's members; of their bytes only labels.

    Raises
    ------
    DataError
        If the tar is not whole, a key comes twice, or it is not plain which member is its picture, mask or label.
    """
    seen: set[str] = set()
    with tar.open("rb") as file:
        listed = members(tar, file, findings.noticed)
        for key, found in itertools.groupby(listed, key=lambda member: key_and_kind(member.name)[0]):
            if key in seen:
                raise DataError(f"{tar}: the key {key} comes twice, or its members do not lie together; sort the tar")
            seen.add(key)
            by_kind: dict[str, tarfile.TarInfo] = {}
            for member in found:
                kind = key_and_kind(member.name)[1]
                if kind in by_kind:
                    raise DataError(f"{tar}: {member.name} comes twice")
                by_kind[kind] = member
            sample = _Key(tar, file, key, by_kind, findings).sample(with_labels)
            if sample:
                yield sample


@dataclass(frozen=True)
class _Key:
    """The members of one key by kind, which is what follows the first dot, in lower case."""

    tar: Path
    file: BinaryIO
    key: str
    by_kind: dict[str, tarfile.TarInfo]
    findings: Findings

    def sample(self, with_labels: bool) -> Sample | None:
        """What they amount to; None where they have neither picture nor mask."""
        masks = [kind for kind in self.by_kind if _is_mask(kind)]
        pictures = [kind for kind in self.by_kind if _suffix(kind) in SUFFIXES and kind not in masks]
        # `0001.jpg` is the picture, even beside `0001.depth.png`.
        pictures = [kind for kind in pictures if "." not in kind] or pictures
        for kinds, what in ((pictures, "pictures"), (masks, "masks")):
            if len(kinds) > 1:
                raise DataError(
                    f"{self.tar}: the key {self.key} has {len(kinds)} {what}: {self._named(kinds)}; {RULE}: leave "
                    "one, or rename them so that no dot comes before that of the suffix"
                )
        if masks and not pictures:
            raise DataError(f"{self.tar}: the key {self.key} has a mask and no picture; give both the same key")
        label, label_name, read = None, None, set[str]()
        if with_labels:
            label, label_name, read = self._label(pictures[0] if pictures else "")
        self._leave_out({*pictures, *masks, *read}, label is not None or not with_labels)
        if not pictures:
            if label is not None:
                self.findings.add_orphan(self._place(min(read)))
            return None
        self.findings.add_picture(self._place(pictures[0]), "." in pictures[0], label is not None)
        places = [
            locator(str(self.tar), member.name, member.offset_data, member.size)
            for member in (self.by_kind[kind] for kind in [*pictures, *masks])
        ]
        return Sample(self.key, places[0], places[1] if masks else None, label, label_name)

    def _label(self, picture: str) -> tuple[str | None, str | None, set[str]]:
        """Label, of `.cls` or of `label` in `.json`, its name, of the latter, and the kinds that were read."""
        of_cls = self._one("cls", picture)
        # Beside `KEY.cls`, only `KEY.json` says more of it.
        of_json = ("json" if "json" in self.by_kind else None) if of_cls == "cls" else self._one("json", picture)
        label = self._class(of_cls) if of_cls else None
        said, name = self._said(of_json, bool(picture)) if of_json else (None, None)
        if label is not None and said is not None and label != said and not _same_number(label, said):
            raise DataError(
                f"{self.tar}: the key {self.key} has the label {label} in {self._named([of_cls or ''])} and {said} in "
                f"{self._named([of_json or ''])}; leave one"
            )
        taken = of_cls if label is not None else of_json if said is not None else None
        if taken and picture and _prefix(taken) != _prefix(picture) and "." in taken:
            place = f"{self._place(taken)} beside {self._named([picture])}"
            self.findings.noticed.count("warning", _ELSEWHERE, place)
        read = {kind for kind in (of_cls, of_json) if kind}
        return label if label is not None else said, name, read

    def _one(self, suffix: str, picture: str) -> str | None:
        """The kind of that suffix which belongs to the picture; None where there is none."""
        kinds = [kind for kind in self.by_kind if kind == suffix or kind.endswith(f".{suffix}")]
        beside = f"{_prefix(picture)}.{suffix}"
        for wanted in (suffix, beside):
            if wanted in kinds:
                return wanted
        if len(kinds) > 1 and suffix == "cls":
            raise DataError(
                f"{self.tar}: the key {self.key} has {len(kinds)} labels: {self._named(kinds)}; {RULE}: call one "
                f"{self.key}.cls, or set labels: none"
            )
        return kinds[0] if len(kinds) == 1 else None

    def _class(self, kind: str) -> str:
        text = content(self.tar, self.file, self.by_kind[kind]).strip()
        if is_missing(text) or not text.isprintable():
            shown = f"{text[:40]!r}" if text else "empty"
            raise DataError(
                f"{self.tar}: {self._named([kind])}: it is {shown}, but has to be an integer or the name of a class"
            )
        return text

    def _said(self, kind: str, strict: bool) -> tuple[str | None, str | None]:
        """Label and its name in a JSON member; without `strict`, which is beside a picture, it may be anything."""
        where = f"{self.tar}: {self._named([kind])}"
        try:
            said = json.loads(content(self.tar, self.file, self.by_kind[kind]), object_pairs_hook=_once)
        except (ValueError, RecursionError, DataError) as error:
            if not strict:
                return None, None
            raise error if isinstance(error, DataError) else DataError(f"{where}: it is no JSON: {error}") from error
        if not isinstance(said, dict):
            if strict:
                text = "{n} .json members are no objects, such as {example}; no label is read from them"
                self.findings.noticed.count("warning", text, self._place(kind))
            return None, None
        if not strict:
            return (str(said["label"]), None) if "label" in said else (None, None)
        if "label" not in said:
            self.findings.add_keys(said, self._place(kind))
        name = said.get("label_name")
        if name is not None and not isinstance(name, str):
            raise DataError(f"{where}: label_name is {json.dumps(name)}; make it a text")
        label = _label_text(said["label"], where) if "label" in said else None
        return label, name.strip() or None if name is not None else None

    def _leave_out(self, read: set[str], is_labelled: bool) -> None:
        """Count members that are not read, beside a picture or without."""
        for kind in self.by_kind.keys() - read:
            place, suffix, parts = self._place(kind), _suffix(kind), set(kind.split("."))
            what = f"further pictures of a key ({_family(kind)})" if suffix in SUFFIXES else f"{suffix} members"
            self.findings.noticed.leave_out(what, place, level="warning" if may_be_missed(suffix) else "note")
            if parts & LABELS or (suffix == ".json" and not is_labelled and self._said(kind, strict=False)[0]):
                self.findings.add_unread(place)
            elif parts & PERHAPS:
                text = f"{{n}} {suffix} members are not read, such as {{example}}; labels are read of .cls and .json"
                self.findings.noticed.count("note" if is_labelled else "warning", text, place)

    def _place(self, kind: str) -> str:
        return f"{self.tar}!{self.by_kind[kind].name}"

    def _named(self, kinds: list[str]) -> str:
        return first_of((self.by_kind[kind].name for kind in kinds), 4, " and ")


def _family(kind: str) -> str:
    """The last two parts of a kind, but no number: `.depth.png` of `depth.png`, `.png` of `05.png`."""
    before = _prefix(kind).rpartition(".")[2]
    return f".{before}{_suffix(kind)}" if before.isalpha() else _suffix(kind)


def _suffix(kind: str) -> str:
    return f".{kind.rpartition('.')[2]}"


def _prefix(kind: str) -> str:
    return kind.rpartition(".")[0]


def _is_mask(kind: str) -> bool:
    return _suffix(kind) in SUFFIXES and _prefix(kind).rpartition(".")[2] in _MASKS


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a key that comes twice, json.loads would take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice in it")
    return found


def _label_text(value: Any, where: str) -> str:
    """A label of JSON as a text: integers, whole floats and texts."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or is_missing(str(value)):
        raise DataError(f"{where}: label is {json.dumps(value)}; make it an integer or a text, or leave it out")
    return str(value).strip()


def _same_number(first: str, second: str) -> bool:
    try:
        return float(first) == float(second)
    except ValueError:
        return False
