"""List the pictures within tar files as WebDataset keeps them: members of one key lie together; nothing is unpacked."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from visae.config.settings import WebDatasetSettings
from visae.data.compressions import decompressor
from visae.data.images import SUFFIXES
from visae.data.labels import Labels
from visae.data.noticed import Noticed
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits, in_order
from visae.data.split_names import check_split_name
from visae.data.tar_findings import Findings
from visae.data.tar_samples import samples
from visae.data.walks import kind_of_file, may_be_missed
from visae.errors import DataError

_BRACES = re.compile(r"\{([^{}]*)\}")
# Compressed ones are found too where all tars are wanted: left out silently, they would be missed by nobody.
_TARS = "**/*.{tar,tgz,tar.gz,tar.bz2,tar.xz,tar.zst,tar.lz4}"


def list_webdataset(settings: WebDatasetSettings, seed: int) -> Listing:
    """List the pictures of tar files in the order of the tars' names and of their members, split by split.

    Raises
    ------
    DataError
        If a tar is missing, compressed, cut off, several in one or has a key twice, or labels would be dropped or do
        not fit together.
    """
    root = existing(settings.root, "root")
    for split in settings.splits:
        check_split_name(split, "splits")
    patterns = settings.splits or {"": _TARS}
    tars = {split: _matching(root, patterns[split], split) for split in in_order(patterns)}
    by_tar: dict[Path, str] = {}
    for split, found in tars.items():
        for tar in found:
            if tar in by_tar:
                raise DataError(f"splits: {tar} is in {by_tar[tar]} and in {split}; leave it in one")
            by_tar[tar] = split
    noticed, where = Noticed(), f"root: {root}"
    _count_beside(root, by_tar, noticed)
    with_labels = settings.labels == "members"
    labels = Labels(where, "set labels: none", settings.classes, zero_based=settings.zero_based)
    findings = Findings(noticed)
    for split, found in tars.items():
        n_samples = 0
        for tar in found:
            for sample in samples(tar, findings, with_labels):
                labels.add(f"{sample.key} of {tar.name}", split, sample.label, sample.label_name, sample.mask)
                n_samples += 1
        if not n_samples:
            place = f"splits: {split}" if split else where
            raise DataError(f"{place}: its tar files have no pictures ({', '.join(sorted(SUFFIXES))})")
    if with_labels:
        findings.check(where, labels.seen)
    classes = labels.classes(noticed)

    def with_keys(split: str) -> Iterator[tuple[str, Picture]]:
        unread = Findings(Noticed())
        for sample in (sample for tar in tars[split] for sample in samples(tar, unread, with_labels)):
            number, name = labels.of(sample.label)
            yield sample.key, Picture(sample.picture, split, number, name, sample.mask)

    if settings.splits:
        return Listing((picture for split in tars for _, picture in with_keys(split)), classes, noticed)
    check_shares(settings)
    return Listing(in_drawn_splits(lambda: with_keys(""), settings, seed, where), classes, noticed)


def _count_beside(root: Path, tars: Collection[Path], noticed: Noticed) -> None:
    """Count files below the folder that are not read."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(os.path.abspath(os.path.join(folder, name)))
            if path not in tars:
                missed = may_be_missed(path.suffix.lower())
                noticed.leave_out(kind_of_file(name), str(path), level="warning" if missed else "note")


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
        if command := decompressor(start):
            raise DataError(
                f"{place}: {path} is compressed, so that pictures within cannot be read where they lie; run "
                f"`{command}` on it first (pictures are compressed themselves: it will hardly grow)"
            )
        if start.startswith((b"PK", b"Rar!", b"7z")):
            raise DataError(f"{place}: {path} is no tar file but another archive; unpack it and write a tar")
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
