"""A look at each data set: its whole list, and of its pictures and masks the first and some at random."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from visae.activations.manifest import read_manifest
from visae.config.settings import ActivationsSettings, ScenePairsSettings, ScenesSettings, Settings, UsersSettings
from visae.data.index import listed
from visae.data.locators import cut
from visae.data.pictures import Listing, Picture
from visae.doctor.pictures import of_pictures
from visae.doctor.report import Section
from visae.doctor.shared import Places
from visae.errors import DataError
from visae.files import read_json
from visae.notices import first_of, from_plain

_FIRST = 4  # of each split, looked at in any case
_NAMED = 5


@dataclass
class _Sample:
    """Pictures of a split: the first, and a fair draw of `size` among all."""

    size: int | None
    pictures: list[Picture] = field(default_factory=list)
    n_seen: int = 0

    def add(self, picture: Picture, draw: random.Random) -> None:
        self.n_seen += 1
        if self.size is None or len(self.pictures) < max(self.size, _FIRST):
            self.pictures.append(picture)
        elif (place := draw.randrange(self.n_seen)) >= _FIRST and place < len(self.pictures):
            self.pictures[place] = picture


@dataclass
class _Counts:
    """Counts over a whole list; 8 bytes a picture are held to find the same file in two splits."""

    images: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    labels: dict[str, set[int]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    samples: dict[str, _Sample] = field(default_factory=dict)


def of_dataset(section: Section, settings: Settings, name: str, sample: int | None, places: Places) -> int:
    """Look at a data set as a study will use it; returns its number of pictures.

    Parameters
    ----------
    sample
        Pictures to look at; None looks at all.
    places
        Where its pictures lie is added to it.

    Raises
    ------
    DataError
        If it cannot be listed.
    """
    dataset = settings.datasets[name]
    if isinstance(dataset, ScenesSettings):
        section.fine(f"scenes: {dataset.train} train, {dataset.val} val, {dataset.test} test pictures will be made")
        return dataset.train + dataset.val + dataset.test
    if isinstance(dataset, ScenePairsSettings):
        section.fine(f"scene_pairs: {dataset.n_pictures} pictures of {dataset.train + dataset.val} scenes will be made")
        return dataset.n_pictures
    if isinstance(dataset, UsersSettings):
        section.fine(f"users: {dataset.train} train, {dataset.val} val, {dataset.test} test users will be made")
        return dataset.train + dataset.val + dataset.test
    if isinstance(dataset, ActivationsSettings):
        return _of_activations(section, dataset)
    listing = listed(dataset, settings.seed + dataset.seed)
    counts = _counted(listing, sample)
    section.fine(f"{dataset.kind}: {_splits_text(counts)}; {len(listing.classes)} classes")
    _of_splits(section, counts, settings, name)
    _of_labels(section, counts, listing, settings, name)
    places[name] = {split: np.array(files, dtype=np.int64) for split, files in counts.files.items()}
    _of_shared_files(section, places[name])
    section.notices(listing.noticed.notices())
    of_pictures(section, [draw.pictures for draw in counts.samples.values()], listing, dataset, whole=sample is None)
    _of_earlier_index(section, settings, name)
    return counts.images.total()


def _counted(listing: Listing, sample: int | None) -> _Counts:
    counts, draw = _Counts(), random.Random(0)
    folders: dict[str, str] = {}
    n_splits = 2  # a sample is shared by train and val, and the rare other splits come on top
    for picture in listing.pictures:
        split = picture.split
        if split not in counts.samples:
            counts.samples[split] = _Sample(None if sample is None else -(-sample // n_splits))
        counts.images[split] += 1
        counts.labelled[split] += picture.label is not None
        counts.masked[split] += picture.mask is not None
        if picture.label is not None:
            counts.labels.setdefault(split, set()).add(picture.label)
        counts.files.setdefault(split, []).append(hash(_real_place(picture.path, folders)))
        counts.samples[split].add(picture, draw)
    return counts


def _real_place(path: str, folders: dict[str, str]) -> tuple[str, str]:
    """Folder or container of a picture with links followed, and its place therein; `folders` keeps those seen."""
    folder, file = cut(path)
    if not folder:
        folder, file = os.path.split(os.path.realpath(path) if os.path.islink(path) else path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return folders[folder], file


def _splits_text(counts: _Counts) -> str:
    return ", ".join(
        f"{split} {n:,} pictures ({counts.labelled[split]:,} labelled, {counts.masked[split]:,} with masks)"
        for split, n in counts.images.items()
    )


def _tasks(settings: Settings, name: str) -> dict[str, str]:
    """Tasks that some study has for a data set, with the key that says so."""
    found = {}
    for study, section in settings.studies.items():
        for task in ("classification", "segmentation"):
            if getattr(section, task) == name:
                found[task] = f"studies: {study}: {task}"
    return found


def _of_splits(section: Section, counts: _Counts, settings: Settings, name: str) -> None:
    """Everything is learned on train and measured on val."""
    tasks = _tasks(settings, name)
    if not counts.images["train"]:
        section.wrong(f"no picture is in the split train (splits: {', '.join(counts.images)})", "name it in splits")
    if not counts.images["val"]:
        described = any(name in study.describe for study in settings.studies.values())
        if tasks:
            section.wrong(
                f"no picture is in the split val, on which {', '.join(tasks)} is measured", "name it in splits"
            )
        elif described:
            section.odd("no picture is in the split val, on which scores of latents are measured")
    smallest = {split: n for split, n in counts.images.items() if split in ("train", "val") and 0 < n < 10}
    for split, n in smallest.items():
        section.odd(f"only {n} pictures are in the split {split}")


def _of_labels(section: Section, counts: _Counts, listing: Listing, settings: Settings, name: str) -> None:
    tasks, names = _tasks(settings, name), listing.classes

    def named(labels: set[int]) -> str:
        return first_of((names.get(label, label) for label in sorted(labels)), _NAMED)

    for task, counted in (("classification", counts.labelled), ("segmentation", counts.masked)):
        what = "labels" if task == "classification" else "masks"
        for split in ("train", "val"):
            if task in tasks and counts.images[split] and not counted[split]:
                section.wrong(f"{tasks[task]}: no picture of {split} has {what}", f"see where {what} are looked for")
            elif 0 < counted[split] < counts.images[split]:
                missing = counts.images[split] - counted[split]
                section.odd(f"{missing:,} of {counts.images[split]:,} pictures of {split} have no {what}")
    train, val = counts.labels.get("train", set()), counts.labels.get("val", set())
    if "classification" in tasks and len(train) == 1:
        section.wrong(
            f"{tasks['classification']}: all labels of train are of one class ({named(train)})", "two or more"
        )
    if train and val and (unknown := val - train):
        say = section.wrong if unknown == val else section.odd
        say(f"{len(unknown)} classes of val are not in train: {named(unknown)}", "name classes alike in all splits")
    if train and val and (unmeasured := train - val):
        section.odd(f"{len(unmeasured)} classes of train are not in val: {named(unmeasured)}")


def _of_shared_files(section: Section, splits: dict[str, NDArray[np.int64]]) -> None:
    """The same file in two splits, by links too; copies have other names and are found by their bytes alone."""
    for split in splits.keys() - {"train"}:
        both = np.intersect1d(splits.get("train", np.array([], dtype=np.int64)), splits[split])
        if len(both):
            section.wrong(
                f"{len(both):,} files are in train and in {split}, links followed: what is measured is too good",
                "splits of different pictures",
            )


def _of_earlier_index(section: Section, settings: Settings, name: str) -> None:
    """What the index said, where it is made already."""
    path = Path(settings.results, "datasets", name, "summary.json")
    if not path.is_file():
        return
    summary = read_json(path)
    section.notices(from_plain(summary.get("notices", ())))
    if summary.get("n_shared_between_splits"):
        section.odd(f"{path}: {summary['n_shared_between_splits']} pictures are in more than one split")


def _of_activations(section: Section, dataset: ActivationsSettings) -> int:
    """Vectors of the user's own: files and columns, from their footers alone."""
    root = Path(dataset.root).expanduser().absolute()
    if (root / "manifest.json").is_file():
        manifest = read_manifest(root / "manifest.json")
        section.fine(f"a store of {manifest['n_images']:,} pictures, layer {manifest['layer']}, is linked to")
        return manifest["n_images"]
    files = sorted(root.rglob("*.parquet"))
    if not files:
        raise DataError(f"root: {root}: no Parquet files and no manifest.json")
    rows = 0
    for file in files:
        metadata = pyarrow.parquet.read_metadata(file)
        names = metadata.schema.to_arrow_schema().names
        missing = [column for column in ("image_id", "activation") if column not in names]
        if missing:
            section.wrong(
                f"{file}: no column {missing[0]!r}; it has {', '.join(names)}", "docs/store.md has an example"
            )
        rows += metadata.num_rows
    section.fine(f"{len(files)} Parquet files with {rows:,} rows")
    raise DataError("given activations are counted once they are taken in: snakemake activations")
