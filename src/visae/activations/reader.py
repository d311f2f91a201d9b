"""The shuffled reader: deterministic, resumable at any batch, bounded in memory, one thread ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

import numpy as np
import torch

from visae.activations.schema import DTYPES
from visae.activations.store import ActivationStore, Kinds
from visae.errors import StoreError

# Rows are shuffled within a pool of about this many bytes; two pools exist at a time.
POOL_BYTES = 256 << 20
# One thread waits for the disk while another checks checksums.
_READERS = 2
_BATCHES_AHEAD = 8
# torch computes in one thread what has fewer elements than this (its GRAIN_SIZE is 32,768).
_SERIAL_BELOW = 32_000
_BITS = {2: (torch.int16, np.int16), 4: (torch.int32, np.int32)}


class _Group(NamedTuple):
    store: int
    shard: int
    group: int
    images: range
    rows: int


class _Pool(NamedTuple):
    """Rows (n, d_model) that are being read, as bits, and the order in which they are handed out."""

    values: np.ndarray
    order: np.ndarray
    reads: list[Future]


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
    rank, world_size
        Of several processes that read together, which one this is: each row group is read by exactly one of them in
        an epoch. `n_tokens` is then this process's share.

    Raises
    ------
    StoreError
        If stores do not go together or there is nothing to read.
    """

    def __init__(
        self,
        stores: list[ActivationStore],
        split: str,
        batch_size: int,
        seed: int,
        kinds: Kinds = "patches",
        pool_bytes: int = POOL_BYTES,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        widths = {store.d_model for store in stores}
        if len(widths) != 1:
            found = ", ".join(f"{store.folder}: {store.d_model}" for store in stores)
            raise StoreError(f"stores of unlike d_model cannot be read as one: {found}; allowed: one d_model for all")
        self.stores, self.batch_size, self.seed, self.kinds = stores, batch_size, seed, kinds
        self._groups = [
            _Group(number, shard, group, images, len(images) * store.n_tokens(kinds))
            for number, store in enumerate(stores)
            if split in store.splits
            for shard, group, images in store.groups(store.splits[split])
        ]
        # Dealt in a fixed random order: neighbouring pictures, which may be alike, go to different processes.
        dealt = np.random.default_rng([seed, world_size]).permutation(len(self._groups))[rank::world_size]
        self._groups = [self._groups[number] for number in np.sort(dealt)]
        self.n_tokens = sum(group.rows for group in self._groups)
        if not self.n_tokens:
            raise StoreError(
                f"{stores[0].folder}: no tokens of split {split!r} to read (process {rank} of {world_size})"
            )
        dtypes = {store.dtype for store in stores}
        self._dtype = DTYPES[dtypes.pop() if len(dtypes) == 1 else "float32"]
        row_bytes = stores[0].d_model * self._dtype.itemsize
        self._n_pools = -(-self.n_tokens // max(pool_bytes // row_bytes, batch_size))

    def batches(self, start: int = 0) -> Iterator[torch.Tensor]:
        """Endless float32 batches (batch_size, d_model), from batch number `start` on."""
        ahead: queue.Queue[torch.Tensor | BaseException] = queue.Queue(maxsize=_BATCHES_AHEAD)
        stopped = threading.Event()
        thread = threading.Thread(target=self._read_ahead, args=(start, ahead, stopped), daemon=True)
        thread.start()
        try:
            while True:
                batch = ahead.get()
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            stopped.set()
            while thread.is_alive():  # the thread may wait for room in the queue
                try:
                    ahead.get(timeout=0.05)
                except queue.Empty:
                    continue

    def pictures(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Which pictures the rows of batch `number` are of: numbers of stores and image ids, (batch_size,) each."""
        stores, images, missing = [], [], self.batch_size
        pools = self._pools_from(number * self.batch_size)
        while missing:
            pool, order = next(pools)
            ends = np.cumsum([group.rows for group in pool])
            rows = order[:missing]
            which = np.searchsorted(ends, rows, side="right")
            within = rows - (ends - [group.rows for group in pool])[which]
            per_image = np.array([group.rows // len(group.images) for group in pool])
            stores.append(np.array([group.store for group in pool])[which])
            images.append(np.array([group.images.start for group in pool])[which] + within // per_image[which])
            missing -= len(rows)
        return np.concatenate(stores), np.concatenate(images)

    def _read_ahead(self, start: int, ahead: queue.Queue, stopped: threading.Event) -> None:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="store reader") as readers:
            try:
                for batch in self._shuffled(start * self.batch_size, readers):
                    if stopped.is_set():
                        return
                    ahead.put(batch)
            except BaseException as failure:  # handed to the other side
                ahead.put(failure)
            finally:
                readers.shutdown(wait=True, cancel_futures=True)

    def _shuffled(self, skip: int, readers: ThreadPoolExecutor) -> Iterator[torch.Tensor]:
        """Endless float32 batches from row `skip` on; while a pool is handed out the next one is read."""
        pools = self._pools_from(skip)
        # Two pools take turns in memory that is asked for once: fresh pages cost more than the copying.
        memory = [self._pool_memory(), self._pool_memory()]
        upcoming = self._begun(next(pools), memory[0], readers)
        batch, filled = self._empty_batch(), 0
        for turn in count(1):
            current, upcoming = upcoming, self._begun(next(pools), memory[turn % 2], readers)
            for done in current.reads:
                done.result()
            taken = 0
            while taken < len(current.order):
                rows = current.order[taken : taken + self.batch_size - filled]
                np.take(current.values, rows, axis=0, out=batch[filled : filled + len(rows)], mode="clip")
                taken, filled = taken + len(rows), filled + len(rows)
                if filled == self.batch_size:
                    yield _as_float32(torch.from_numpy(batch).view(self._dtype))
                    filled = 0
                    if self._dtype == torch.float32:  # else the batch was converted into memory of its own
                        batch = self._empty_batch()

    # Rows are moved as bits: NumPy has no bfloat16, and it moves them in one thread, where torch would take all cores.

    def _empty_batch(self) -> np.ndarray:
        return np.empty((self.batch_size, self.stores[0].d_model), dtype=_BITS[self._dtype.itemsize][1])

    def _pool_memory(self) -> np.ndarray:
        most = self.n_tokens // self._n_pools + 2 * max(group.rows for group in self._groups)
        return np.empty((min(self.n_tokens, most), self.stores[0].d_model), dtype=_BITS[self._dtype.itemsize][1])

    def _pools_from(self, skip: int) -> Iterator[tuple[list[_Group], np.ndarray]]:
        """Pools of this epoch and all later ones, with the order of their rows, from row `skip` on."""
        epoch, skip = divmod(skip, self.n_tokens)
        while True:
            for number, pool in enumerate(self._pools(epoch)):
                rows = sum(group.rows for group in pool)
                if skip >= rows:
                    skip -= rows
                    continue
                yield pool, np.random.default_rng([self.seed, epoch, number, 1]).permutation(rows)[skip:]
                skip = 0
            epoch += 1

    def _pools(self, epoch: int) -> list[list[_Group]]:
        """Row groups of an epoch in their random order, cut into pools of about equal size."""
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(self._groups))
        pools: list[list[_Group]] = [[]]
        rows = 0
        for index in order:
            # Equal pools: a small rest at the end would be shuffled badly.
            if rows >= len(pools) * self.n_tokens / self._n_pools and pools[-1]:
                pools.append([])
            pools[-1].append(self._groups[index])
            rows += self._groups[index].rows
        return pools

    def _begun(
        self, planned: tuple[list[_Group], np.ndarray], memory: np.ndarray, readers: ThreadPoolExecutor
    ) -> _Pool:
        """Start reading a pool."""
        pool, order = planned

        def read(group: _Group, place: int) -> None:
            found = self.stores[group.store].read_group(group.shard, group.group, group.images, self.kinds)
            bits = found.to(self._dtype).view(_BITS[self._dtype.itemsize][0]).numpy()
            memory[place : place + group.rows].reshape(bits.shape)[:] = bits

        places = np.cumsum([0, *(group.rows for group in pool)]).tolist()
        reads = [readers.submit(read, group, place) for group, place in zip(pool, places, strict=False)]
        return _Pool(memory, order, reads)


def _as_float32(rows: torch.Tensor) -> torch.Tensor:
    """Rows (n, d_model) as float32; converted piece by piece, each too small for torch to share it among threads.

    Threads that wait for one another are many times slower where the trainer keeps all cores busy.
    """
    if rows.dtype == torch.float32:
        return rows
    converted = torch.empty(rows.shape)
    piece = max(1, _SERIAL_BELOW // rows.shape[1])
    for out, part in zip(converted.split(piece), rows.split(piece), strict=True):
        out.copy_(part)
    return converted
