"""What was read of a data set, as summary.json keeps it, and what has to be said of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow.parquet

from visae.config.settings import DatasetSettings
from visae.data.copies import Copies, Pair, find_copies
from visae.data.facts import dataset_facts
from visae.data.noticed import Level
from visae.data.paired import notices_of_pairs
from visae.data.pictures import Listing
from visae.data.split_names import missing_splits
from visae.data.tally import Tally
from visae.notices import Notice, as_plain, first_of, from_plain, log_notices

logger = logging.getLogger(__name__)

_NAMED = 8  # names and ids listed in a notice


def what_was_read(
    listing: Listing,
    tally: Tally,
    index_path: Path,
    settings: DatasetSettings,
    pairs: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Count and name what a finished index holds, leaves out and finds twice.

    Parameters
    ----------
    listing
        Iterated to its end.
    index_path
        The written index.
    pairs
        What `pairs_facts` says of its pairs.

    Returns
    -------
    dict
        Part of summary.json; results/README.md says what each key is.
    """
    copies = find_copies(tally)
    compared = settings.hashes or settings.check == "decode"
    found: dict[str, Any] = {
        "n_images": tally.n_images,
        "n_skipped": tally.n_skipped,
        "splits": {
            split: {"n_images": n, "n_labelled": tally.n_labelled[split], "n_masked": tally.n_masked[split]}
            for split, n in tally.n_images.items()
        },
        "sizes": _sizes(index_path),
        "left_out": listing.noticed.left_out(),
        "n_turned": tally.n_turned,
        "n_turned_masked": tally.n_turned_masked,
        # With neither pixels nor hashes only links to one file are found: none found is then no news.
        "n_shared_between_splits": copies.n_between if compared else copies.n_between or None,
        "shared_example": _paths(index_path, copies.between),
        **of_classes_and_masks(listing, tally),
        **({"pairs": list(pairs)} if pairs else {}),
    }
    notices = [
        *listing.noticed.notices(),
        *missing_splits(tally.n_images),
        *_of_copies(copies, index_path),
        *_of_classes(found),
        *notices_of_masks(found, tally),
        *notices_of_pairs(pairs),
    ]
    return {**found, "notices": as_plain(sorted(notices, key=lambda notice: notice.level != "warning"))}


def of_classes_and_masks(listing: Listing, tally: Tally) -> dict[str, Any]:
    """Part of summary.json on classes and masks, of all pictures or of those that were counted."""
    n_pixels, reading = tally.mask_pixels.total(), tally.reading
    classes = [_class(number, name, tally) for number, name in sorted(listing.classes.items())]
    unlabelled = sum(n for number, n in tally.mask_pixels.items() if reading.is_unlabelled(number))

    def ignored(number: int) -> bool:
        return number - reading.zero_based in reading.ignore_ids

    return {
        "unlabelled_share": unlabelled / n_pixels if n_pixels else None,
        "classes": classes,
        "mask_ids": [{"id": number, "share": n / n_pixels} for number, n in sorted(tally.mask_pixels.items())],
        "mask_modes": dict(sorted(tally.mask_modes.items())),
        "never": [entry["name"] for entry in classes if not entry["n_images"] and not ignored(entry["id"])],
    }


def log_summary(name: str, summary: dict[str, Any]) -> None:
    """Log in a few lines what was read of a data set, and all its notices."""
    for what, told in dataset_facts(summary).items():
        logger.info("%s: %s: %s", name, what, told)
    log_notices(name, from_plain(summary["notices"]))


def _class(number: int, name: str, tally: Tally) -> dict[str, Any]:
    n_pixels = tally.mask_pixels.total()
    stored = number - tally.reading.zero_based
    n_own = 0 if tally.reading.is_unlabelled(stored) else tally.mask_pixels[stored]
    n_images = {split: n for split in tally.n_images if (n := tally.class_images[number, split])}
    return {"id": number, "name": name, "n_images": n_images, "pixel_share": n_own / n_pixels if n_pixels else None}


def _sizes(index_path: Path) -> dict[str, list[int]]:
    """Width and height of the pictures that have the fewest, middle and most pixels."""
    table = pyarrow.parquet.read_table(index_path, columns=["width", "height"])
    width, height = (table.column(name).to_numpy() for name in ("width", "height"))
    order = np.argsort(width.astype(np.int64) * height, kind="stable")
    places = {"smallest": order[0], "median": order[(len(order) - 1) // 2], "largest": order[-1]}
    return {which: [int(width[place]), int(height[place])] for which, place in places.items()}


def _paths(index_path: Path, pair: Pair | None) -> list[str] | None:
    if pair is None:
        return None
    paths = polars.scan_parquet(index_path).select("path")
    return [paths.slice(number, 1).collect().item() for number in pair]


def _of_copies(copies: Copies, index_path: Path) -> Iterator[Notice]:
    def such(pair: Pair | None) -> str:
        return "such as " + " and ".join(_paths(index_path, pair) or [])

    if copies.n_between:
        yield Notice(
            "warning",
            f"{copies.n_between} pictures are in more than one split, {such(copies.between)}: whatever is measured on "
            "val is too good; remove copies and links",
        )
    if copies.n_two_labels:
        yield Notice(
            "warning",
            f"{copies.n_two_labels} pictures are under two labels, {such(copies.two_labels)}: one of them is wrong",
        )
    if copies.n_within:
        yield Notice("note", f"{copies.n_within} pictures are in their split already, {such(copies.within)}")


def _of_classes(found: dict[str, Any]) -> Iterator[Notice]:
    if found["never"]:
        n_never, n_classes = len(found["never"]), len(found["classes"])
        yield Notice("note", f"{n_never} of {n_classes} classes have no picture: {first_of(found['never'], _NAMED)}")
    if {"train", "val"} <= found["splits"].keys():
        directions: list[tuple[str, str, Level]] = [("val", "train", "warning"), ("train", "val", "note")]
        for have, lack, level in directions:
            names = [c["name"] for c in found["classes"] if have in c["n_images"] and lack not in c["n_images"]]
            if names:
                yield Notice(level, f"classes that are in {have} and not in {lack}: {first_of(names, _NAMED)}")


def notices_of_masks(found: dict[str, Any], tally: Tally) -> Iterator[Notice]:
    """What has to be said of the masks in `of_classes_and_masks`."""
    shares = {entry["id"]: entry["share"] for entry in found["mask_ids"]}
    if not shares:
        return
    reading = tally.reading
    ignored = [number for number in reading.ignore_ids if number]
    if 0 in shares and ignored and not reading.zero_based:
        named = first_of(ignored, _NAMED)
        yield Notice(
            "warning",
            f"masks hold 0 ({shares[0]:.1%} of their pixels), which counts as unlabelled beside {named}: if it is "
            "a class (ADE20K reduced, Cityscapes' trainIds, VOC's background), it is never counted, and where the list "
            "of classes begins at 1 for it, all classes are shifted by one; set zero_based: true",
        )
    if tally.palette:
        yield from _of_palette(found, tally)


def _of_palette(found: dict[str, Any], tally: Tally) -> Iterator[Notice]:
    """Ids, colours and names side by side: only a person can see whether these belong together."""
    names = {entry["id"]: entry["name"] for entry in found["classes"]}
    reading, lines = tally.reading, []
    for number, colour in sorted(tally.palette.items())[:_NAMED]:
        name = "unlabelled" if reading.is_unlabelled(number) else names.get(number + reading.zero_based, "no class")
        lines.append(f"{number} #{bytes(colour).hex()} {name}")
    yield Notice(
        "note",
        f"masks have palettes, whose ids are taken as stored; id, colour, class: {', '.join(lines)}; do they fit?",
    )
    coloured = tally.palette.get(0, (0, 0, 0))
    if len(set(coloured)) > 1 and reading.is_unlabelled(0):
        yield Notice(
            "warning",
            f"in masks with palettes, the unlabelled id 0 has the colour #{bytes(coloured).hex()}: palettes that were "
            "made by quantizing colours number them in any order; turn colours into ids by a fixed table, or set "
            "zero_based: true if 0 is a class",
        )
    grey = {number: colour[0] for number, colour in tally.palette.items() if len(set(colour)) == 1}
    black_and_white = grey.items() <= {0: 0, 1: 255}.items()
    if len(grey) == len(tally.palette) and not black_and_white and any(n != value for n, value in grey.items()):
        shown = ", ".join(f"{number} is grey {value}" for number, value in sorted(grey.items())[:_NAMED])
        yield Notice(
            "warning",
            f"masks have a palette of greys whose ids are others than the greys ({shown}): ids are taken as stored; if "
            "the greys are the ids, save masks as PNG of greys",
        )
