"""Look at every picture and mask once, in order and in parallel, with a bounded number under way."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from visae.config.settings import DatasetSettings
from visae.data.images import open_picture, picture_size, placed
from visae.data.locators import content_sha256, file_identity
from visae.data.mask_files import MaskReading, stored_mask
from visae.data.pictures import Listing, Picture
from visae.errors import DataError
from visae.notices import first_of
from visae.progress import progress_bar

_CHUNK = 64  # pictures handed to a thread at once
_NAMED_IDS = 5
_SAMPLED = 128  # pixels across and down that are compared: all would take as long as decoding


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What a look at a mask told: mode, format, pixels by stored id, colours of these ids, its own orientation."""

    mode: str
    kind: str
    pixels: dict[int, int]
    palette: dict[int, tuple[int, int, int]]
    orientation: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a picture told, or why it or its mask cannot be used.

    Attributes
    ----------
    copy_key
        64 bits that are the same for copies: of pixels, of the sha256 where pictures are not decoded, of the place on
        disk where they are not hashed either.
    orientation
        That of EXIF, 1 to 8.
    """

    width: int = 0
    height: int = 0
    sha256: str | None = None
    copy_key: int = 0
    orientation: int = 1
    mask: MaskFacts | None = None
    unreadable: str = ""
    mask_problem: str = ""
    mask_hint: str = ""


class UnknownIdsError(DataError):
    """A mask has ids that no class has; `hint` is what they may mean, worth saying once."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


class Checker:
    """Looks at pictures as a data set's settings say; threads may share it.

    Parameters
    ----------
    class_ids
        Ids of the classes; masks may hold these, as `reading` reads them.
    reading
        What the ids that masks store mean.
    """

    def __init__(self, settings: DatasetSettings, class_ids: Collection[int], reading: MaskReading) -> None:
        self.settings, self.reading = settings, reading
        stored = {number - 1 if reading.zero_based else number for number in class_ids}
        self._allowed = {*stored, *reading.ignore_ids, *(() if reading.zero_based else (0,))}

    def check(self, picture: Picture) -> Checked:
        """Look at one picture and its mask."""
        try:
            picture.path.encode()
        except UnicodeEncodeError:
            return Checked(unreadable="its name is not UTF-8; rename it")
        try:
            width, height, orientation, key = self._looked_at(picture.path)
        except DataError as error:
            return Checked(unreadable=str(error).removeprefix(f"{picture.path}: "))
        # Masks are decoded in any case: a wrong one is not noticed later, it makes results wrong.
        mask, problem, hint = None, "", ""
        if picture.mask:
            try:
                mask = self._mask(picture.mask, (width, height), orientation)
            except DataError as error:
                problem, hint = str(error), getattr(error, "hint", "")
        sha256 = content_sha256(picture.path) if self.settings.hashes else None
        if key is None:
            key = int(sha256[:16], 16) if sha256 else file_identity(picture.path)
        return Checked(width, height, sha256, key, orientation, mask, mask_problem=problem, mask_hint=hint)

    def _looked_at(self, path: str) -> tuple[int, int, int, int | None]:
        """Width, height, orientation, and 64 bits of the pixels where they are decoded."""
        if self.settings.check == "size":
            return *picture_size(path), None
        image, orientation = open_picture(path)
        return *image.size, orientation, _key_of_pixels(image)

    def _mask(self, path: str, size: tuple[int, int], orientation: int) -> MaskFacts:
        mask = stored_mask(path)
        ids = placed(mask, path, size, self.reading, orientation)
        pixels = _pixels_by_id(ids)
        foreign = sorted(pixels.keys() - self._allowed)
        if foreign:
            raise self._unknown_ids(path, foreign, pixels)
        colours = {number: mask.palette[number] for number in pixels if number in mask.palette}
        return MaskFacts(mask.mode, mask.kind, pixels, colours, mask.orientation)

    def _unknown_ids(self, path: str, foreign: list[int], pixels: dict[int, int]) -> UnknownIdsError:
        """What is wrong with ids that are not listed, and what they may mean."""
        text = f"{path}: class ids {first_of(foreign, _NAMED_IDS)} are not in the list of classes"
        if self.reading.zero_based:
            return UnknownIdsError(text, "with zero_based the list counts from 0; unlabelled is what ignore_ids names")
        hint = "0 = unlabelled; ignore_ids makes more so"
        if 0 in pixels:
            hint += (
                ". But if 0 is a class in these masks, as where 255 stands for other (ADE20K reduced, trainIds), then "
                "with ignore_ids alone 0 would never be counted and classes be shifted by one: set zero_based: true, "
                "and number classes.txt from 0"
            )
        if foreign == [255] and pixels.keys() <= {0, 255}:
            hint += ". If 255 is the one class (black and white masks), give it the id 255 in the list of classes"
        return UnknownIdsError(text, hint)


def _key_of_pixels(image: Image.Image) -> int:
    """64 bits that are the same for the same pixels, however they are stored: up to 128 x 128 of them are compared."""
    width, height = image.size
    sample = image.resize((min(width, _SAMPLED), min(height, _SAMPLED)), Image.Resampling.NEAREST)
    digest = hashlib.sha256(f"{width}x{height}:".encode() + sample.tobytes()).digest()
    return int.from_bytes(digest[:8], "big")


def _pixels_by_id(ids: NDArray[np.int32]) -> dict[int, int]:
    if int(ids.min()) >= 0 and int(ids.max()) < 2**16:  # counting is ten times faster than sorting
        counts = np.bincount(ids.ravel())
        present = np.flatnonzero(counts)
        return dict(zip(present.tolist(), counts[present].tolist(), strict=True))
    return dict(zip(*(found.tolist() for found in np.unique(ids, return_counts=True)), strict=True))


def checked_pictures(
    listing: Listing, settings: DatasetSettings, reading: MaskReading
) -> Iterator[tuple[Picture, Checked]]:
    """Yield every picture with what was found, in the order of the listing.

    Pillow decodes and hashlib hashes outside Python's lock, so threads do. A few chunks are under way at a time, so
    that memory does not grow with the data set.
    """
    checker = Checker(settings, listing.classes, reading)
    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool, progress_bar(None, "reading", "pictures") as bar:
        waiting: deque[tuple[list[Picture], Future[list[Checked]]]] = deque()
        for chunk in _chunks(listing.pictures):
            waiting.append((chunk, pool.submit(_check_all, checker, chunk)))
            if len(waiting) > 3 * n_threads:
                yield from _finished(waiting, bar)
        while waiting:
            yield from _finished(waiting, bar)


def _chunks(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    iterator = iter(pictures)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _check_all(checker: Checker, chunk: list[Picture]) -> list[Checked]:
    return [checker.check(picture) for picture in chunk]


def _finished(waiting: deque, bar: tqdm) -> Iterator[tuple[Picture, Checked]]:
    """Wait for the oldest chunk."""
    chunk, future = waiting.popleft()
    yield from zip(chunk, future.result(), strict=True)
    bar.update(len(chunk))
