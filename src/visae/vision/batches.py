"""Pictures for a network in batches; those that cannot be read are counted and passed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from visae.data.images import Preprocessing, pixels
from visae.errors import DataError
from visae.progress import progress_bar


class Batch(NamedTuple):
    """Some pictures, as a network sees them.

    Attributes
    ----------
    numbers
        Which of the paths, int64 (n,).
    images
        uint8 (n, 3, height, width), in this machine's memory.
    unreadable
        The errors of those that could not be read.
    """

    numbers: np.ndarray
    images: torch.Tensor
    unreadable: list[str]


def picture_batches(
    paths: Sequence[str], card: Preprocessing, *, batch_size: int, workers: int, what: str
) -> Iterator[Batch]:
    """Yield batches in the order of the paths; one without a readable picture has no images.

    Parameters
    ----------
    workers
        Processes that decode; 0 decodes here.
    what
        What the progress bar says.
    """
    loader = DataLoader(_Pictures(paths, card), batch_size=batch_size, num_workers=workers, collate_fn=list)
    with progress_bar(len(paths), what, "pictures") as bar:
        for entries in loader:
            usable = [entry for entry in entries if entry.image is not None]
            yield Batch(
                np.array([entry.number for entry in usable], dtype=np.int64),
                torch.stack([entry.image for entry in usable]) if usable else torch.empty(0, dtype=torch.uint8),
                [entry.problem for entry in entries if entry.image is None],
            )
            bar.update(len(entries))


class _Entry(NamedTuple):
    """A picture by its number: its pixels, or why there are none."""

    number: int
    image: torch.Tensor | None
    problem: str = ""


class _Pictures(Dataset):
    """Decoded pictures in order, unreadable ones among them."""

    def __init__(self, paths: Sequence[str], card: Preprocessing) -> None:
        self.paths, self.card = paths, card

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> _Entry:
        try:
            return _Entry(item, pixels(self.paths[item], self.card))
        except DataError as error:
            return _Entry(item, None, str(error))
