"""Reading shuffled batches of activations from a cold disk: visae, raw memory maps, saev, SAELens.

Every repetition begins with the contender's files out of the page cache (fsync, then posix_fadvise DONTNEED). The
batches are patch tokens, float32, of pictures that have a class token besides, except SAELens's data set, which holds
the patches alone.
"""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.disk import drop_pages
from bench.harness import Measurement, Samples, Target, fastest, interleaved, measurement, median_ratio
from bench.peer_processes import Peer
from visae.activations.given import write_store
from visae.activations.reader import POOL_BYTES, ShuffledReader
from visae.activations.schema import ROWS_PER_GROUP
from visae.activations.store import ActivationStore

N_TOKENS, D_MODEL, LAYER = 257, 384, 10
BATCH = 4096
IMAGES_PER_GROUP = ROWS_PER_GROUP // N_TOKENS
# A file holds whole row groups, so that the raw blocks are exactly visae's.
IMAGES_PER_FILE = 8 * IMAGES_PER_GROUP
ROWS_PER_FILE = IMAGES_PER_FILE * (N_TOKENS - 1)
SAELENS_FILES = 4
VISAE = ("visae, float32", "visae, float16 (its default)")
RAW = ("raw memory map", "raw memory map, a thread ahead")
SAELENS = ("SAELens, mixed in a buffer of its default size", "SAELens, mixed in a buffer of visae's size")
SAEV = ("saev, its default workers", "saev, a worker a core")
AS_RAW, EIGHTFOLD = Target("ratio", ">=", 0.9), Target("ratio", ">=", 8)


@dataclass(frozen=True)
class Data:
    """The same rows as visae's stores and as raw files, which are saev's own format too."""

    folder: Path
    files: int

    def manifests(self, dtype: str) -> list[Path]:
        """One store a raw file."""
        return [self.folder / f"visae-{dtype}" / str(file) / "manifest.json" for file in range(self.files)]

    @property
    def raw(self) -> list[Path]:
        """Float32 (IMAGES_PER_FILE, N_TOKENS, D_MODEL) each."""
        return [self.folder / "raw" / f"acts{file:06d}.bin" for file in range(self.files)]

    @property
    def rows(self) -> int:
        """Patch tokens in whole batches."""
        return self.files * ROWS_PER_FILE // BATCH * BATCH


def write_data(folder: Path, rows: int) -> Data:
    """Write about that many patch rows both ways; one array, shifted from file to file, is all the memory needed."""
    data = Data(folder, max(1, round(rows / ROWS_PER_FILE)))
    values = np.random.default_rng(0).standard_normal((IMAGES_PER_FILE, N_TOKENS, D_MODEL), dtype=np.float32)
    data.raw[0].parent.mkdir(parents=True)
    for file, raw in enumerate(data.raw):
        values += 1
        values.tofile(raw)
        for dtype in ("float32", "float16"):
            folder = data.manifests(dtype)[file].parent
            write_store(folder, values, [-1, *range(N_TOKENS - 1)], {"train": IMAGES_PER_FILE}, dtype=dtype)
    return data


def measure(folder: Path, rows: int, saev_rows: int, threads: int, repetitions: int) -> list[Measurement]:
    """Compare all contenders on about `rows` rows.

    saev, the slowest by far, is timed over a random `saev_rows` of them, and SAELens over the first files' rows.
    """
    data = write_data(folder, rows)
    common = {"threads": threads, "shape": [IMAGES_PER_FILE, N_TOKENS, D_MODEL], "batch_size": BATCH, "layer": LAYER}
    saev_settings = {**common, "folder": str(folder / "raw"), "images": data.files * IMAGES_PER_FILE}
    files = min(data.files, SAELENS_FILES)
    saelens_settings = {**common, "raw": str(folder / "raw"), "folder": str(folder / "saelens"), "shards": files}
    saev_rows = min(saev_rows, data.rows)
    # Its mixing buffer keeps some rows back, so a whole data set would make it begin a second time.
    saelens_rows = files * ROWS_PER_FILE // BATCH * BATCH - 4 * BATCH
    mixed = min(POOL_BYTES // (4 * D_MODEL), saelens_rows // 3)
    with (
        Peer("saev", "saev_reading.py", saev_settings, folder / "saev.log") as saev,
        Peer("saelens", "saelens_reading.py", saelens_settings, folder / "saelens.log") as saelens,
    ):
        contenders = {
            VISAE[0]: _cold(folder / "visae-float32", lambda: _timed(_visae_batches(data, "float32"), data.rows)),
            VISAE[1]: _cold(folder / "visae-float16", lambda: _timed(_visae_batches(data, "float16"), data.rows)),
            RAW[0]: _cold(folder / "raw", lambda: _timed(raw_batches(data), data.rows)),
            RAW[1]: _cold(folder / "raw", lambda: _timed(ahead(raw_batches(data)), data.rows)),
            SAEV[0]: _cold(folder / "raw", lambda: _peer(saev, rows=saev_rows, workers=None)),
            SAEV[1]: _cold(folder / "raw", lambda: _peer(saev, rows=saev_rows, workers=threads)),
            SAELENS[0]: _cold(folder / "saelens", lambda: _peer(saelens, rows=saelens_rows, mixed_rows=None)),
            SAELENS[1]: _cold(folder / "saelens", lambda: _peer(saelens, rows=saelens_rows // 2, mixed_rows=mixed)),
        }
        samples = interleaved(contenders, repetitions)
    return _judged(samples)


def _judged(samples: Samples) -> list[Measurement]:
    """Rows a second of all, then visae over the fastest of each kind."""
    rows = [
        measurement(f"reading, cold: {name}", median(values), "rows/s", median_ratio(samples, VISAE[0], name))
        for name, values in samples.items()
    ]
    # Over raw files it is the same bytes that count; over other tools, what users get: each one's default format.
    judged = (
        (VISAE[0], "raw at its fastest", RAW, AS_RAW),
        (VISAE[1], "saev at its fastest", SAEV, EIGHTFOLD),
        (VISAE[0], "saev at its fastest", SAEV, None),
        (VISAE[1], "SAELens, mixed as well", SAELENS[1:], EIGHTFOLD),
        (VISAE[0], "SAELens, mixed as well", SAELENS[1:], None),
        (VISAE[1], "SAELens, hardly mixed", SAELENS[:1], None),
        (VISAE[0], "SAELens, hardly mixed", SAELENS[:1], None),
    )
    for visae, what, names, target in judged:
        ratio = median_ratio(samples, visae, fastest(samples, list(names)))
        rows.append(measurement(f"reading, cold: {visae} over {what}", ratio, "x", ratio, target))
    return rows


def _visae_batches(data: Data, dtype: str = "float32") -> Iterator[np.ndarray]:
    stores = [ActivationStore.open(path) for path in data.manifests(dtype)]
    reader = ShuffledReader(stores, "train", BATCH, seed=0)
    for batch in reader.batches():
        yield batch.numpy()


def raw_batches(data: Data) -> Iterator[np.ndarray]:
    """One epoch of batches straight from memory maps, in blocks and pools of visae's size.

    A pool's blocks are copied into one array, and each batch is one gather of permuted rows from it; what a pool
    leaves over opens the next one's first batch.
    """
    maps = [
        np.memmap(path, np.float32, "r", shape=(IMAGES_PER_FILE, N_TOKENS, D_MODEL)).reshape(
            -1, IMAGES_PER_GROUP, N_TOKENS, D_MODEL
        )
        for path in data.raw
    ]
    blocks = [block for file in maps for block in file]
    order = np.random.default_rng([0, 0, 0]).permutation(len(blocks))
    rows_a_block = IMAGES_PER_GROUP * (N_TOKENS - 1)
    n_pools = -(-len(blocks) * rows_a_block // (POOL_BYTES // (4 * D_MODEL)))
    left = np.empty((0, D_MODEL), np.float32)
    for number, pool in enumerate(np.array_split(order, n_pools)):
        values = np.empty((len(pool), IMAGES_PER_GROUP, N_TOKENS - 1, D_MODEL), np.float32)
        for place, block in enumerate(pool):
            values[place] = blocks[block][:, 1:]
        flat = values.reshape(-1, D_MODEL)
        shuffled = np.random.default_rng([0, 0, number, 1]).permutation(len(flat))
        first = (BATCH - len(left)) % BATCH
        if first:
            yield np.concatenate([left, flat[shuffled[:first]]])
        whole = first + (len(flat) - first) // BATCH * BATCH
        for start in range(first, whole, BATCH):
            yield flat[shuffled[start : start + BATCH]]
        left = flat[shuffled[whole:]]


def ahead(batches: Iterator[np.ndarray], waiting: int = 4) -> Iterator[np.ndarray]:
    """Run an iterator in a thread that is at most some batches ahead."""
    ready: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=waiting)

    def work() -> None:
        for batch in batches:
            ready.put(batch)
        ready.put(None)

    threading.Thread(target=work, daemon=True).start()
    while (batch := ready.get()) is not None:
        yield batch


def _timed(batches: Iterator[np.ndarray], rows: int) -> float:
    """Rows a second until that many have come; what made the iterator opens its files within the clock."""
    started, taken = time.perf_counter(), 0
    for batch in batches:
        assert batch.shape == (BATCH, D_MODEL)
        taken += len(batch)
        if taken >= rows:
            break
    seconds = time.perf_counter() - started
    assert taken == rows
    return taken / seconds


def _peer(peer: Peer, **options: int | None) -> float:
    answer = peer.repeat(**options)
    assert answer["shape"] == [BATCH, D_MODEL]
    return answer["rows_a_second"]


def _cold(folder: Path, measured: Callable[[], float]) -> Callable[[], float]:
    """Empty the page cache of a folder before each run; files of earlier runs are closed first."""

    def run() -> float:
        gc.collect()
        drop_pages(folder)
        return measured()

    return run
