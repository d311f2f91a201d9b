"""What a segmentation head learns from: tokens of the store and coarse masks, in shuffled batches of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn import functional

from visae.activations.store import ActivationStore
from visae.heads.masks import UNLABELLED, Masks

_Picture = tuple[int, torch.Tensor]


class TrainingTokens:
    """Tokens of some pictures: in memory where they fit, else read from the store in every epoch.

    In memory are, besides the tokens, the labels: 2 bytes for each cell of the label grid of each picture.

    Parameters
    ----------
    image_ids
        Pictures of one split, ascending; a row is a position in this list.
    shape
        Height and width of the label grid.
    memory_bytes
        Above this size the tokens stay in the store, and pools of this size are shuffled.

    Attributes
    ----------
    class_ids
        Ids of the classes that some picture has: the channels. Of others there is nothing to learn.
    labels
        int16 (n, height, width) class channels.
    """

    def __init__(
        self,
        store: ActivationStore,
        masks: Masks,
        image_ids: list[int],
        shape: tuple[int, int],
        memory_bytes: float,
    ) -> None:
        self.store = store
        self._row = {image_id: row for row, image_id in enumerate(image_ids)}
        self._groups = store.groups(range(image_ids[0], image_ids[-1] + 1))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.labels = torch.stack([*pool.map(lambda image_id: _coarse(masks.read(image_id), shape), image_ids)])
        # Picture by picture, so that memory does not hold all labels again as wide integers.
        present = sorted({channel for grid in self.labels for channel in grid.unique().tolist()} - {UNLABELLED})
        self.class_ids = [masks.class_ids[channel] for channel in present]
        # The last entry is that of UNLABELLED, which is -1.
        channels = torch.full((len(masks.class_ids) + 1,), UNLABELLED, dtype=self.labels.dtype)
        channels[torch.tensor(present, dtype=torch.int64)] = torch.arange(len(present), dtype=self.labels.dtype)
        for grid in self.labels:
            grid.copy_(channels[grid.long()])
        first = store.read_group(*self._groups[0], "all")[0]
        self._pool = max(1, int(memory_bytes // (first.numel() * first.element_size())))
        self._tokens: torch.Tensor | None = None
        if len(image_ids) <= self._pool:
            self._tokens = first.new_empty(len(image_ids), *first.shape)
            for number in range(len(self._groups)):
                for row, tokens in self._read(number):
                    self._tokens[row] = tokens

    def epoch(
        self, rows: torch.Tensor, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each row once, in random order: float32 tokens (b, n_tokens, d_model) and labels (b, height, width)."""
        if self._tokens is not None:
            for batch in rows[torch.randperm(len(rows), generator=generator)].split(batch_size):
                yield self._tokens[batch].float(), self.labels[batch]
            return
        wanted, waiting = set(rows.tolist()), list[_Picture]()
        for number in torch.randperm(len(self._groups), generator=generator).tolist():
            waiting += [picture for picture in self._read(number) if picture[0] in wanted]
            if len(waiting) >= self._pool:
                shuffled = [waiting[i] for i in torch.randperm(len(waiting), generator=generator)]
                whole = len(shuffled) // batch_size * batch_size
                yield from self._batches(shuffled[:whole], batch_size)
                waiting = shuffled[whole:]
        shuffled = [waiting[i] for i in torch.randperm(len(waiting), generator=generator)]
        yield from self._batches(shuffled, batch_size)

    def _batches(self, pictures: list[_Picture], batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(pictures), batch_size):
            rows, tokens = zip(*pictures[start : start + batch_size], strict=True)
            yield torch.stack(tokens).float(), self.labels[list(rows)]

    def _read(self, number: int) -> Iterator[_Picture]:
        """Rows and tokens, as they are stored, of the wanted pictures of a row group."""
        shard, group, images = self._groups[number]
        for image_id, tokens in zip(images, self.store.read_group(shard, group, images, "all"), strict=True):
            if image_id in self._row:
                yield self._row[image_id], tokens


def _coarse(mask: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Nearest samples of a mask (h, w) at the centres of a grid."""
    return functional.interpolate(mask[None, None].float(), shape, mode="nearest-exact")[0, 0].to(mask.dtype)
