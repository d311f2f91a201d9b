"""Look at every picture and mask once, in order and in parallel, with a bounded number under way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visae.config.settings import DatasetSettings
from visae.data.images import image_size, open_image, read_mask
from visae.data.locators import content_sha256
from visae.data.pictures import Listing, Picture
from visae.errors import DataError
from visae.progress import progress_bar

_CHUNK = 64  # pictures handed to a thread at once
_NAMED_IDS = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a picture told: its size and hash, or why it or its mask cannot be used."""

    width: int = 0
    height: int = 0
    sha256: str | None = None
    unreadable: str = ""
    mask_problem: str = ""


class Checker:
    """Looks at pictures as a data set's settings say; threads may share it.

    Parameters
    ----------
    class_ids
        Ids that masks may hold beside 0.
    ignore_ids
        Ids of masks that stand for 0.
    """

    def __init__(self, settings: DatasetSettings, class_ids: Collection[int], ignore_ids: Collection[int]) -> None:
        self.settings, self.ignore_ids = settings, ignore_ids
        self._allowed = np.zeros(max(class_ids, default=0) + 1, dtype=bool)
        self._allowed[[0, *class_ids]] = True

    def check(self, picture: Picture) -> Checked:
        """Look at one picture and its mask."""
        try:
            picture.path.encode()
        except UnicodeEncodeError:
            return Checked(unreadable="its name is not UTF-8; rename it")
        try:
            decoded = self.settings.check == "decode"
            width, height = open_image(picture.path).size if decoded else image_size(picture.path)
        except DataError as error:
            return Checked(unreadable=str(error).removeprefix(f"{picture.path}: "))
        # Masks are decoded in any case: a wrong one is not noticed later, it makes results wrong.
        problem = self._mask_problem(picture.mask, (width, height)) if picture.mask else ""
        sha256 = content_sha256(picture.path) if self.settings.hashes else None
        return Checked(width, height, sha256, mask_problem=problem)

    def _mask_problem(self, path: str, size: tuple[int, int]) -> str:
        try:
            mask = read_mask(path, size, self.ignore_ids)
        except DataError as error:
            return str(error)
        lowest, highest = int(mask.min()), int(mask.max())
        if lowest >= 0 and highest < len(self._allowed) and self._allowed[mask].all():
            return ""
        named = ", ".join(map(str, self._foreign_ids(mask)[:_NAMED_IDS]))
        return f"{path}: class ids {named} are not in the list of classes (0 = unlabelled; ignore_ids makes more so)"

    def _foreign_ids(self, mask: NDArray[np.int32]) -> list[int]:
        return sorted(set(np.unique(mask).tolist()) - set(np.flatnonzero(self._allowed).tolist()))


def checked_pictures(
    listing: Listing, settings: DatasetSettings, ignore_ids: Collection[int]
) -> Iterator[tuple[Picture, Checked]]:
    """Yield every picture with what was found, in the order of the listing.

    Pillow decodes and hashlib hashes outside Python's lock, so threads do. A few chunks are under way at a time, so
    that memory does not grow with the data set.
    """
    checker = Checker(settings, listing.classes, ignore_ids)
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
