"""Tokens of pictures at many hook points of a model, from one forward pass, in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visae.activations.schema import TokenChoice
from visae.config.saes import TokenKinds
from visae.vision.batches import picture_batches
from visae.vision.model import HookPoint, VisionModel

# Values that are in memory at once.
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class PointTokens:
    """Tokens of pictures at one hook point.

    Attributes
    ----------
    rows
        float32 (n_pictures, n_prefix + n_patches kept, d_model), prefix tokens first.
    n_prefix
        Tokens before the patches.
    patch_weight
        How many patches each kept one stands for.
    """

    rows: np.ndarray
    n_prefix: int
    patch_weight: float

    def parts(self, tokens: TokenKinds, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Some pictures at a time: which, their tokens (n, t, d_model), and how much each of these counts (t,)."""
        weights = np.ones(self.rows.shape[1], dtype=np.float32)
        weights[self.n_prefix :] = self.patch_weight
        chosen = {"patches": slice(self.n_prefix, None), "class": slice(0, 1), "all": slice(None)}[tokens]
        step = max(1, _AT_ONCE // max(1, self.rows[0, chosen].size))
        for first in range(0, len(self.rows), step):
            some = slice(first, min(first + step, len(self.rows)))
            rows = torch.from_numpy(np.array(self.rows[some, chosen])).to(device)
            yield some, rows, torch.from_numpy(weights[chosen]).to(device)


@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    Attributes
    ----------
    patches, seed
        Patches kept of each picture, drawn by seed and picture.
    batch_size, workers
        Pictures in a forward pass, and processes that decode them.
    """

    patches: int
    batch_size: int
    workers: int
    seed: int


@dataclass(frozen=True)
class ReadTokens:
    """What was read.

    Attributes
    ----------
    points
        Tokens at each hook point.
    n_pictures
        Pictures that could be read.
    unreadable
        The errors of the others.
    """

    points: dict[HookPoint, PointTokens]
    n_pictures: int
    unreadable: list[str]


def read_tokens(
    model: VisionModel,
    points: Sequence[HookPoint],
    paths: Sequence[str],
    folder: Path,
    reading: Reading,
    what: str,
) -> ReadTokens:
    """Read all prefix tokens and some patches of each picture, at all hook points in one forward pass.

    Parameters
    ----------
    folder
        Where the tokens lie: memory holds a batch, however many pictures there are.
    what
        What the progress bar says.
    """
    card = model.card
    choices = {point: TokenChoice(tuple(card.tokens(point.layer)), reading.patches, reading.seed) for point in points}
    files = {
        point: np.lib.format.open_memmap(
            folder / f"{point}.npy",
            mode="w+",
            dtype=np.float32,
            shape=(len(paths), choice.n_rows, card.layers[point.layer].d_model),
        )
        for point, choice in choices.items()
    }
    read, unreadable = 0, list[str]()
    for batch in picture_batches(paths, card, batch_size=reading.batch_size, workers=reading.workers, what=what):
        unreadable += batch.unreadable
        if not len(batch.numbers):
            continue
        found = model.read(batch.images.to(model.device), points)
        rows = slice(read, read + len(batch.numbers))
        for point, tokens in found.items():
            drawn = [choices[point].positions(range(number, number + 1)) for number in batch.numbers]
            positions = torch.from_numpy(np.concatenate(drawn)).to(tokens.device)
            files[point][rows] = tokens.take_along_dim(positions.unsqueeze(2), dim=1).float().cpu().numpy()
        read = rows.stop
    return ReadTokens(
        {
            point: PointTokens(
                file[:read], card.n_prefix, card.layers[point.layer].n_patches / (file.shape[1] - card.n_prefix)
            )
            for point, file in files.items()
        },
        read,
        unreadable,
    )
