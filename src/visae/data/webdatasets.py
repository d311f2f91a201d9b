"""List the pictures within tar files as WebDataset keeps them: members of one key lie together; nothing is unpacked."""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from visae.config.settings import WebDatasetSettings
from visae.data.images import SUFFIXES
from visae.data.labels import Labels
from visae.data.locators import locator
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits, in_order
from visae.errors import DataError

_MASKS = ("mask.png", "seg.png")
_BRACES = re.compile(r"\{([^{}]*)\}")
# What compressed files begin with.
_COMPRESSIONS = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
}
# Compressed ones are found too where all tars are wanted: left out silently, they would be missed by nobody.
_TARS = "**/*.{tar,tgz,tar.gz,tar.bz2,tar.xz,tar.zst,tar.lz4}"


@dataclass(frozen=True, slots=True)
class _Sample:
    """The members of one key: locators of picture and mask, and what is said of the label."""

    key: str
    picture: str
    mask: str | None
    label: str | None
    label_name: str | None


def list_webdataset(settings: WebDatasetSettings, seed: int) -> Listing:
    """List the pictures of tar files in the order of the tars' names and of their members, split by split.

    Raises
    ------
    DataError
        If a tar is missing, compressed, cut off or has a key twice, or labels and masks do not fit together.
    """
    root = existing(settings.root, "root")
    patterns = settings.splits or {"": _TARS}
    tars = {split: _matching(root, patterns[split], split) for split in in_order(patterns)}
    by_tar: dict[Path, str] = {}
    for split, found in tars.items():
        for tar in found:
            if tar in by_tar:
                raise DataError(f"splits: {tar} is in {by_tar[tar]} and in {split}; leave it in one")
            by_tar[tar] = split
    labels = Labels(f"root: {root}", settings.classes, zero_based=settings.zero_based)
    for split, found in tars.items():
        n_samples = 0
        for tar in found:
            for sample in _samples(tar):
                labels.add(f"{sample.key} of {tar.name}", sample.label, sample.label_name, sample.mask)
                n_samples += 1
        if not n_samples:
            place = f"splits: {split}" if split else f"root: {root}"
            raise DataError(f"{place}: its tar files have no pictures ({', '.join(sorted(SUFFIXES))})")
    classes = labels.classes()

    def with_keys(split: str) -> Iterator[tuple[str, Picture]]:
        for sample in itertools.chain.from_iterable(map(_samples, tars[split])):
            number, name = labels.of(sample.label)
            yield sample.key, Picture(sample.picture, split, number, name, sample.mask)

    if settings.splits:
        return Listing((picture for split in tars for _, picture in with_keys(split)), classes)
    check_shares(settings)
    return Listing(in_drawn_splits(lambda: with_keys(""), settings, seed, f"root: {root}"), classes)


def _matching(root: Path, pattern: str, split: str) -> list[Path]:
    """Tar files that a pattern names, sorted."""
    place = f"splits: {split}" if split else "root"
    found: set[Path] = set()
    for one in _without_braces(pattern):
        paths = glob.glob(os.path.join(glob.escape(str(root)), one), recursive=True)
        if split and not paths:
            raise DataError(f"{place}: {root / one}: there is no such tar file")
        found.update(Path(os.path.abspath(path)) for path in paths)
    if not found:
        raise DataError(f"{place}: {root}: it has no tar files")
    for path in sorted(found):
        if not path.is_file():
            raise DataError(f"{place}: {path} is no file")
        with path.open("rb") as file:
            start = file.read(8)
        for magic, command in _COMPRESSIONS.items():
            if start.startswith(magic):
                raise DataError(
                    f"{place}: {path} is compressed, so that pictures within cannot be read where they lie; run "
                    f"`{command}` on it first (pictures are compressed themselves: it will hardly grow)"
                )
        if path.suffix != ".tar":
            raise DataError(f"{place}: {path}: the name of a tar file has to end in .tar")
    return sorted(found)


def _without_braces(pattern: str) -> list[str]:
    """Expand `{0000..0012}` and `{a,b}`, as a shell does."""
    braces = _BRACES.search(pattern)
    if not braces:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if first > last:
            raise DataError(f"splits: {pattern}: {braces[0]} counts down; write the smaller number first")
        choices = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    rest = _without_braces(pattern[braces.end() :])
    return [pattern[: braces.start()] + choice + end for choice in choices for end in rest]


def _samples(tar: Path) -> Iterator[_Sample]:
    """Read the headers of a tar's members; of their bytes only labels."""
    seen: set[str] = set()
    with tar.open("rb") as file:
        for key, members in itertools.groupby(_members(tar, file), key=lambda member: _key_and_kind(member.name)[0]):
            if key in seen:
                raise DataError(f"{tar}: the key {key} comes twice, or its members do not lie together; sort the tar")
            seen.add(key)
            by_kind: dict[str, tarfile.TarInfo] = {}
            for member in members:
                kind = _key_and_kind(member.name)[1]
                if kind in by_kind:
                    raise DataError(f"{tar}: {member.name} comes twice")
                by_kind[kind] = member
            sample = _sample(tar, file, key, by_kind)
            if sample:
                yield sample


def _members(tar: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Files in a tar, checked to be whole."""
    try:
        archive = tarfile.TarFile(fileobj=file)
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # it keeps all that it has seen
            name = os.path.basename(member.name)
            if member.isdir() or name.startswith(".") or "." not in name:
                continue
            if not member.isreg() or member.issparse():
                raise DataError(f"{tar}: {member.name} is a link or has holes; write the tar with real files")
            yield member
        # tarfile takes a damaged or missing header for the end: a whole tar ends in zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{tar}: it is cut off or damaged ({error}); copy or make it again") from error


def _key_and_kind(name: str) -> tuple[str, str]:
    """Split at the first dot of the last part: `a/0001.mask.png` is `a/0001` and `mask.png`."""
    folder, last = os.path.split(name)
    key, _, kind = last.partition(".")
    return os.path.join(folder, key), kind.lower()


def _sample(tar: Path, file: BinaryIO, key: str, by_kind: dict[str, tarfile.TarInfo]) -> _Sample | None:
    """What the members of a key amount to; None where they have neither picture nor mask."""
    masks = [kind for kind in by_kind if kind.endswith(_MASKS)]
    pictures = [kind for kind in by_kind if f".{kind.rpartition('.')[2]}" in SUFFIXES and kind not in masks]
    # `0001.jpg` is the picture, even beside `0001.depth.png`.
    pictures = [kind for kind in pictures if "." not in kind] or pictures
    if len(pictures) > 1 or len(masks) > 1:
        raise DataError(f"{tar}: the key {key} has {' and '.join(pictures if len(pictures) > 1 else masks)}; leave one")
    if not pictures:
        if masks:
            raise DataError(f"{tar}: the key {key} has a mask and no picture; give both the same key")
        return None
    label, label_name = _label(tar, file, by_kind)
    places = [
        locator(str(tar), member.name, member.offset_data, member.size)
        for member in (by_kind[kind] for kind in [*pictures, *masks])
    ]
    return _Sample(key, places[0], places[1] if masks else None, label, label_name)


def _label(tar: Path, file: BinaryIO, by_kind: dict[str, tarfile.TarInfo]) -> tuple[str | None, str | None]:
    """Label and its name: of `.cls`, else of `label` in `.json`; `label_name` of the latter."""
    label, said = "", dict[str, Any]()
    if "cls" in by_kind:
        label = _content(tar, file, by_kind["cls"]).strip()
    if "json" in by_kind:
        name = by_kind["json"].name
        try:
            said = json.loads(_content(tar, file, by_kind["json"]))
        except json.JSONDecodeError as error:
            raise DataError(f"{tar}: {name}: it is no JSON: {error}") from error
        said = said if isinstance(said, dict) else {}
        for entry, kinds in (("label", (int, str)), ("label_name", (str,))):
            value = said.get(entry)
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                wanted = " or ".join({int: "an integer", str: "a text"}[kind] for kind in kinds)
                raise DataError(f"{tar}: {name}: {entry} is {value!r}; make it {wanted}")
        if not label and said.get("label") is not None:
            label = str(said["label"]).strip()
    return label or None, said.get("label_name") or None


def _content(tar: Path, file: BinaryIO, member: tarfile.TarInfo) -> str:
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{tar}: {member.name}: it is no UTF-8 text") from error
