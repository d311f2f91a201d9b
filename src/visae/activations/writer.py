"""Writing one shard: in a thread of its own, checked, and whole or absent."""

from __future__ import annotations

import queue
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from visae.activations.schema import DTYPES, ShardHeader, ShardRecord
from visae.errors import StoreError
from visae.files import atomic_path, file_sha256, write_json


class ShardWriter:
    """Takes batches of activations in picture order and writes them as row groups of whole pictures.

    Use as a context manager: the shard appears under its name only when the block ends without an error.

    Parameters
    ----------
    path
        The shard's final name.
    header
        What the shard holds.
    """

    def __init__(self, path: Path, header: ShardHeader) -> None:
        self.path, self.header = path, header
        self.minimum, self.maximum = np.inf, -np.inf
        self._waiting: list[np.ndarray] = []
        self._n_waiting = 0
        self._next_image = header.first_image

    def __enter__(self) -> ShardWriter:
        self._whole = atomic_path(self.path)
        self._temporary = self._whole.__enter__()
        self._file = pq.ParquetWriter(
            self._temporary,
            self.header.schema(),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=1 << 24,
            store_schema=True,
        )
        return self

    def add(self, activations: torch.Tensor) -> None:
        """Append pictures, (n_images, n_tokens, d_model).

        Raises
        ------
        StoreError
            If a value is not finite in the stored dtype; the message names the picture.
        """
        stored = activations.detach().to("cpu", DTYPES[self.header.dtype]).contiguous().numpy()
        low, high = float(stored.min()), float(stored.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = self._next_image + self._n_waiting + int(np.argmin(np.isfinite(stored).all(axis=(1, 2))))
            raise StoreError(
                f"{self.path}: image_id {bad} has NaN or infinite activations at layer {self.header.layer} "
                f"as {self.header.dtype}; look at that picture, or set the model's dtype: float32"
            )
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self._waiting.append(stored)
        self._n_waiting += len(stored)
        while self._n_waiting >= self.header.images_per_group:
            self._write_group(self.header.images_per_group)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                if self._n_waiting:
                    self._write_group(self._n_waiting)
                written = self._next_image - self.header.first_image
                if written != self.header.n_images:
                    raise StoreError(f"{self.path}: {written} pictures came, {self.header.n_images} were announced")
            self._file.close()
        except BaseException as failure:
            self._whole.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._whole.__exit__(kind, error, trace)  # type: ignore[arg-type]
        if kind is None:
            write_json(self.path.with_suffix(".json"), asdict(self._record()))

    def _record(self) -> ShardRecord:
        return ShardRecord(
            file=self.path.name,
            fingerprint=self.header.fingerprint,
            first_image=self.header.first_image,
            n_images=self.header.n_images,
            rows=self.header.n_images * len(self.header.tokens),
            bytes=self.path.stat().st_size,
            sha256=file_sha256(self.path),
            minimum=self.minimum,
            maximum=self.maximum,
            nan_count=0,
        )

    def _write_group(self, n_images: int) -> None:
        joined = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        group, rest = joined[:n_images], joined[n_images:]
        self._waiting, self._n_waiting = ([rest] if len(rest) else []), len(rest)
        rows, n_tokens = n_images * group.shape[1], group.shape[1]
        schema = self.header.schema()
        ids = np.repeat(np.arange(self._next_image, self._next_image + n_images, dtype=np.int32), n_tokens)
        tokens = np.tile(np.array(self.header.tokens, dtype=np.int16), n_images)
        buffer = pa.py_buffer(np.ascontiguousarray(group))
        activation = pa.Array.from_buffers(schema.field("activation").type, rows, [None, buffer])
        self._file.write_table(pa.table([ids, tokens, activation], schema=schema), row_group_size=rows)
        self._next_image += n_images


class BackgroundWriter:
    """Feeds several shard writers from one thread, so that the forward pass never waits for the disk."""

    def __init__(self, writers: dict[int, ShardWriter], waiting: int = 4) -> None:
        self._writers = writers
        self._queue: queue.Queue[dict[int, torch.Tensor] | None] = queue.Queue(maxsize=waiting)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="shard writer", daemon=True)
        self._thread.start()

    def add(self, layers: dict[int, torch.Tensor]) -> None:
        """Hand over one batch, layer to (n_images, n_tokens, d_model); raises what writing has raised."""
        if self._failure is not None:
            raise self._failure
        self._queue.put(layers)

    def close(self) -> None:
        """Wait until all is written; raises what writing has raised."""
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (layers := self._queue.get()) is not None:
            if self._failure is not None:
                continue  # drain, so that the sender never blocks
            try:
                for layer, activations in layers.items():
                    self._writers[layer].add(activations)
            except BaseException as failure:  # handed to the main thread
                self._failure = failure
