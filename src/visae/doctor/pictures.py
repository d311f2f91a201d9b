"""A look at pictures and masks themselves: decoded, counted and compared as `index` does it, of all or of a sample."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

from visae.config.settings import AnyDataset
from visae.data.checks import Checked, Checker
from visae.data.copies import find_copies
from visae.data.index import mask_reading
from visae.data.noticed import Noticed
from visae.data.pictures import Listing, Picture
from visae.data.summary import notices_of_masks, of_classes_and_masks
from visae.data.tally import Tally
from visae.doctor.report import Section

_NAMED = 5
_MOST = 0.5  # share of unlabelled pixels above which masks may have been misread
_FEW_COPIES = 0.01  # of the pictures looked at


def of_pictures(
    section: Section, by_split: list[list[Picture]], listing: Listing, dataset: AnyDataset, whole: bool
) -> None:
    """Decode pictures and masks, and say what is wrong with them.

    Parameters
    ----------
    by_split
        Pictures to look at, split by split.
    whole
        Whether these are all that the data set has.
    """
    pictures = list(chain.from_iterable(by_split))
    reading, noticed = mask_reading(dataset), Noticed()
    checker = Checker(replace(dataset, check="decode", hashes=False), listing.classes, reading)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looks = list(zip(pictures, pool.map(checker.check, pictures), strict=True))
    readable = [look for look in looks if not look[1].unreadable]
    tally = Tally(reading, noticed)
    for picture, found in readable:
        tally.add(picture, found)
    if readable:
        section.fine(f"{len(readable):,} pictures looked at: {_sizes_text([found for _, found in readable])}")
    _of_unreadable(section, looks, dataset.max_unreadable)
    if tally.n_wrong_masks:
        n_masks = sum(picture.mask is not None for picture, _ in readable)
        hints = dict.fromkeys(found.mask_hint for _, found in readable if found.mask_hint)
        section.wrong(
            f"{tally.n_wrong_masks:,} of {n_masks:,} masks looked at are wrong: {'; '.join(tally.wrong_masks)}",
            "; ".join(hints),
        )
    section.notices(noticed.notices())
    _of_masks(section, listing, tally, whole)
    _of_copies(section, [picture for picture, _ in readable], tally, whole)


def _sizes_text(found: list[Checked]) -> str:
    by_area = sorted(found, key=lambda each: each.width * each.height)
    smallest, largest = by_area[0], by_area[-1]
    if (smallest.width, smallest.height) == (largest.width, largest.height):
        return f"all {smallest.width} x {smallest.height} pixels"
    return f"{smallest.width} x {smallest.height} to {largest.width} x {largest.height} pixels"


def _of_unreadable(section: Section, looks: list[tuple[Picture, Checked]], at_most: float) -> None:
    bad = [(picture.path, found.unreadable) for picture, found in looks if found.unreadable]
    if not bad:
        return
    text = f"{len(bad):,} of {len(looks):,} pictures looked at are unreadable, such as {bad[0][0]} ({bad[0][1]})"
    if len(bad) > at_most * len(looks):
        section.wrong(f"{text}; max_unreadable: {at_most:g} allows fewer", "mend or remove them")
    else:
        section.odd(f"{text}; they will be skipped")


def _of_masks(section: Section, listing: Listing, tally: Tally, whole: bool) -> None:
    """Say what ids mean, so that a person sees whether they are meant so."""
    seen = of_classes_and_masks(listing, tally)
    if not seen["mask_ids"]:
        return
    section.notices(notices_of_masks(seen, tally))
    shares = sorted((entry for entry in seen["classes"] if entry["pixel_share"]), key=lambda c: -c["pixel_share"])
    most = ", ".join(f"{entry['id']} {entry['name']} {entry['pixel_share']:.0%}" for entry in shares[:_NAMED])
    modes = ", ".join(f"{mode} {n}" for mode, n in seen["mask_modes"].items())
    section.fine(f"masks ({modes}): most of their pixels are {most or 'unlabelled'}")
    missing = seen["never"]
    if missing:
        text = f"{len(missing)} classes are in no mask{'' if whole else ' that was looked at'}, such as {missing[0]}"
        (section.odd if whole else section.fine)(text)
    share = seen["unlabelled_share"]
    if share == 1:
        section.wrong("all pixels of the masks are unlabelled", "see ignore_ids, zero_based and the list of classes")
    elif share > _MOST:
        section.odd(f"{share:.1%} of the masks' pixels are unlabelled", "see ignore_ids, zero_based")
    else:
        section.fine(f"{share:.1%} of the masks' pixels are unlabelled")


def _of_copies(section: Section, pictures: list[Picture], tally: Tally, whole: bool) -> None:
    """The same picture in two splits, or under two labels."""
    copies = find_copies(tally)
    if copies.between is not None:
        first, second = (pictures[number].path for number in copies.between)
        say = section.odd if copies.n_between <= _FEW_COPIES * len(pictures) else section.wrong
        say(
            f"{copies.n_between:,} of {len(pictures):,} pictures looked at are in more than one split, such as {first} "
            f"and {second}: what is measured on val is too good",
            "remove them from one of the two",
        )
    elif whole:
        section.fine("no picture is in more than one split")
    if copies.two_labels is not None:
        first, second = (pictures[number].path for number in copies.two_labels)
        section.odd(f"{copies.n_two_labels:,} pictures are under two labels, such as {first} and {second}")
