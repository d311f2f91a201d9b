"""List the pictures within tar files as WebDataset keeps them: members of one key lie together; nothing is unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from visae.config.settings import WebDatasetSettings
from visae.data.compressions import decompressor
from visae.data.containers import count_beside, files_by_split, place_of
from visae.data.images import SUFFIXES
from visae.data.labels import Labels
from visae.data.noticed import Noticed
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits
from visae.data.split_names import check_split_name
from visae.data.tar_findings import Findings
from visae.data.tar_samples import samples
from visae.errors import DataError

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
    tars = files_by_split(root, patterns, "tar file")
    for split, found in tars.items():
        for tar in found:
            _check_start(tar, place_of(split))
    noticed, where = Noticed(), f"root: {root}"
    count_beside(root, set().union(*tars.values()), noticed)
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


def _check_start(path: Path, place: str) -> None:
    """Refuse what is no tar file, or a compressed one."""
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
