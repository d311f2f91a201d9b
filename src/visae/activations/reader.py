"""The shuffled reader: deterministic, resumable at any batch, bounded in memory, one thread ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from visae.activations.store import ActivationStore, Kinds
from visae.errors import StoreError

# Rows are shuffled within a pool of at most this many bytes; two pools exist at a time.
POOL_BYTES = 256 << 20


class _Group(NamedTuple):
    store: int
    shard: int
    group: int
    images: range
    rows: int


class ShuffledReader:
    """Random batches of tokens from one or several stores, each token exactly once an epoch.

    Row groups are drawn in a random order into a pool, and the pool's rows are permuted. Both orders come
    from the seed, the epoch and the pool's number alone, so any batch is found without reading what was
    before it.

    Parameters
    ----------
    stores
        Stores with the same d_model.
    split
        Pictures to read; a store without that split gives nothing.
    batch_size
        Tokens in a batch.
    seed
        Decides the order.
    kinds
        Which tokens of a picture.
    pool_bytes
        Size of the pool that is shuffled as one.
    """

    def __init__(
        self,
        stores: list[ActivationStore],
        split: str,
        batch_size: int,
        seed: int,
        kinds: Kinds = "patches",
        pool_bytes: int = POOL_BYTES,
    ) -> None:
        widths = {store.d_model for store in stores}
        if len(widths) != 1:
            raise StoreError(f"stores of unlike d_model cannot be read as one: {sorted(widths)}")
        self.stores, self.batch_size, self.seed, self.kinds = stores, batch_size, seed, kinds
        self._groups = [
            _Group(number, shard, group, images, len(images) * store.n_tokens(kinds))
            for number, store in enumerate(stores)
            if split in store.splits
            for shard, group, images in store.groups(store.splits[split])
        ]
        self.n_tokens = sum(group.rows for group in self._groups)
        if not self.n_tokens:
            raise StoreError(f"{stores[0].folder}: no tokens of split {split!r} to read")
        row_bytes = max(store.d_model * np.dtype(store.dtype).itemsize for store in stores)
        self._pool_rows = max(pool_bytes // row_bytes, batch_size)

    def batches(self, start: int = 0) -> Iterator[torch.Tensor]:
        """Endless float32 batches (batch_size, d_model), from batch number `start` on."""
        ahead: queue.Queue[np.ndarray | BaseException] = queue.Queue(maxsize=1)
        stopped = threading.Event()
        thread = threading.Thread(target=self._read_ahead, args=(start, ahead, stopped), daemon=True)
        thread.start()
        parts: list[torch.Tensor] = []
        missing = self.batch_size
        try:
            while True:
                rows = ahead.get()
                if isinstance(rows, BaseException):
                    raise rows
                taken = 0
                while taken < len(rows):
                    piece = rows[taken : taken + missing]
                    parts.append(torch.from_numpy(piece).float())
                    taken += len(piece)
                    missing -= len(piece)
                    if missing == 0:
                        yield parts[0] if len(parts) == 1 else torch.cat(parts)
                        parts, missing = [], self.batch_size
        finally:
            stopped.set()
            while thread.is_alive():  # the thread may wait for room in the queue
                try:
                    ahead.get(timeout=0.05)
                except queue.Empty:
                    continue

    def _read_ahead(self, start: int, ahead: queue.Queue, stopped: threading.Event) -> None:
        try:
            for rows in self._shuffled_rows(start * self.batch_size):
                if stopped.is_set():
                    return
                ahead.put(rows)
        except BaseException as failure:  # handed to the reading side
            ahead.put(failure)

    def _shuffled_rows(self, skip: int) -> Iterator[np.ndarray]:
        """Pieces of the endless shuffled stream of rows, from row `skip` on."""
        epoch, skip = divmod(skip, self.n_tokens)
        while True:
            for number, pool in enumerate(self._pools(epoch)):
                rows = sum(group.rows for group in pool)
                if skip >= rows:
                    skip -= rows
                    continue
                order = np.random.default_rng([self.seed, epoch, number, 1]).permutation(rows)[skip:]
                skip = 0
                values = self._read_pool(pool, rows)
                # Gathered piece by piece: the permuted pool never exists whole.
                for piece in range(0, len(order), 4 * self.batch_size):
                    yield values[order[piece : piece + 4 * self.batch_size]]
            epoch += 1

    def _pools(self, epoch: int) -> list[list[_Group]]:
        """Row groups of an epoch in their random order, cut into pools of about equal size."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self._groups))
        n_pools = -(-self.n_tokens // self._pool_rows)
        pools: list[list[_Group]] = [[]]
        rows = 0
        for index in order:
            # Equal pools: a small rest at the end would be shuffled badly.
            if rows >= len(pools) * self.n_tokens / n_pools and pools[-1]:
                pools.append([])
            pools[-1].append(self._groups[index])
            rows += self._groups[index].rows
        return pools

    def _read_pool(self, pool: list[_Group], rows: int) -> np.ndarray:
        dtypes = {self.stores[group.store].dtype for group in pool}
        values = np.empty((rows, self.stores[0].d_model), dtype="float32" if len(dtypes) > 1 else dtypes.pop())
        filled = 0
        for group in pool:
            read = self.stores[group.store].read_group(group.shard, group.group, group.images, self.kinds)
            values[filled : filled + group.rows] = read.reshape(group.rows, -1)
            filled += group.rows
        return values
