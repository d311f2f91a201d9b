"""What sparse autoencoders learn from and are measured on, read from stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from visae.activations.pair import paired
from visae.activations.reader import ShuffledReader
from visae.activations.store import ActivationStore, Kinds

# Tokens that normalization and initial weights are estimated from, and tokens that quality is measured on.
_SAMPLE_TOKENS = 1 << 16
_HELD_OUT_TOKENS = 1 << 14
# Pictures that an error names.
_NAMED = 8


class Tokens(NamedTuple):
    """Raw activations (n, d_model), and those that a transcoder shall give for them, (n, d_target)."""

    inputs: Tensor
    target: Tensor | None


class TrainingData:
    """Stores, read as one: batches of their split `train`, a sample of it, and held-out tokens.

    Parameters
    ----------
    manifests, targets
        Manifests of the stores, and of those that a transcoder's output is from (none for other SAEs).
    batch_size, seed, kinds
        As of `ShuffledReader`.

    Raises
    ------
    StoreError
        If the stores do not go together, or have nothing to train on.
    """

    def __init__(
        self, manifests: list[Path], targets: list[Path], batch_size: int, seed: int, kinds: Kinds = "patches"
    ) -> None:
        self.stores = [ActivationStore.open(path) for path in manifests]
        self.targets = [ActivationStore.open(path) for path in targets]
        self.d_model = self.stores[0].d_model
        self.d_target = self.targets[0].d_model if targets else None
        self._read = cast(Any, paired(self.stores, self.targets) if targets else self.stores)
        self.seed, self.kinds = seed, kinds
        self.reader = ShuffledReader(self._read, "train", batch_size, seed, kinds)

    @contextmanager
    def batches(self, start: int = 0) -> Iterator[Iterator[Tokens]]:
        """Batches from number `start` on; the reading thread ends with the block."""
        with closing(cast(Any, self.reader.batches(start))) as batches:
            yield map(self._split, batches)

    @cached_property
    def sample(self) -> Tokens:
        """Tokens of the first batches; kept in memory until `forget_sample`."""
        wanted = min(_SAMPLE_TOKENS, self.reader.n_tokens)
        with self.batches() as batches:
            parts = list(islice(batches, -(-wanted // self.reader.batch_size)))
        inputs = torch.cat([part.inputs for part in parts])
        return Tokens(
            inputs, torch.cat([part.target for part in parts if part.target is not None]) if self.targets else None
        )

    def forget_sample(self) -> None:
        """Give the sample's memory back: only initial weights are made from it."""
        vars(self).pop("sample", None)

    @cached_property
    def held_out(self) -> Tokens:
        """Tokens that quality is measured on."""
        size = min(
            _HELD_OUT_TOKENS, sum(len(s.splits.get(self._held, ())) * s.n_tokens(self.kinds) for s in self.stores)
        )
        reader = ShuffledReader(self._read, self._held, size, self.seed, self.kinds)
        with closing(cast(Any, reader.batches())) as batches:
            return self._split(next(batches))

    @property
    def measured_on(self) -> str:
        """What the held-out tokens are of."""
        return "val" if self._held == "val" else "train (no store has a split val)"

    @property
    def _held(self) -> str:
        return "val" if any(store.splits.get("val") for store in self.stores) else "train"

    def pictures(self, number: int, rows: Tensor | None = None) -> str:
        """Pictures that the tokens of batch `number` are of, for a message; of the chosen rows (n,) only, if given."""
        stores, images = self.reader.pictures(number)
        if rows is not None:
            stores, images = stores[rows.numpy()], images[rows.numpy()]
        parts = []
        for store in np.unique(stores):
            ids = np.unique(images[stores == store])
            more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
            parts.append(f"{', '.join(map(str, ids[:_NAMED]))}{more} of {self.stores[store].folder}")
        return "; ".join(parts)

    def _split(self, rows: Tensor) -> Tokens:
        if not self.targets:
            return Tokens(rows, None)
        return Tokens(rows[:, : self.d_model].contiguous(), rows[:, self.d_model :].contiguous())
