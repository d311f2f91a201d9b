"""Writing shards: in threads of their own, checked, and whole or absent."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from visae.activations.hashed import HashedFile
from visae.activations.schema import DTYPES, ShardHeader, ShardRecord, footer_sha256
from visae.errors import StoreError
from visae.files import atomic_path, write_json
from visae.vision.hook_points import HookPoint


class ShardWriter:
    """Takes batches of activations in picture order and writes them as row groups of whole pictures.

    Use as a context manager: the shard appears under its name only when the block ends without an error. Encoding,
    writing and hashing each have a thread, so that none waits for another: one alone is slower than a GPU.

    Parameters
    ----------
    path
        The shard's final name.
    header
        What the shard holds.
    name_of
        Name of the shard's n-th picture, for errors.
    """

    def __init__(self, path: Path, header: ShardHeader, name_of: Callable[[int], str] | None = None) -> None:
        self.path, self.header, self.name_of = path, header, name_of
        self.minimum, self.maximum = np.inf, -np.inf
        # Rows are gathered into the first until a row group is full, while the one before is written; both are reused.
        self._groups: list[torch.Tensor] = []
        self._encoder = ThreadPoolExecutor(1, "shard encoder")
        self._encoded: Future[None] | None = None
        self._n_waiting = 0
        self._next_image = header.first_image

    def __enter__(self) -> ShardWriter:
        self._whole = atomic_path(self.path)
        self._file = HashedFile(self._whole.__enter__())
        self._parquet = pq.ParquetWriter(
            self._file,
            self.header.schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
            data_page_size=1 << 24,
            store_schema=True,
        )
        return self

    def add(self, activations: torch.Tensor) -> None:
        """Append pictures, (n_images, n_rows, d_model): the tokens that the header's choice keeps.

        Raises
        ------
        StoreError
            If a value is not finite in the stored dtype; the message names the picture.
        """
        stored = activations.detach().to("cpu", DTYPES[self.header.dtype])
        low, high = (float(value) for value in stored.aminmax())
        if not (np.isfinite(low) and np.isfinite(high)):
            self._refuse(stored)
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if not self._groups:
            shape = (self.header.images_per_group, *stored.shape[1:])
            self._groups = [torch.empty(shape, dtype=stored.dtype) for _ in range(2)]
        while len(stored):
            group = self._groups[0]
            taken = stored[: len(group) - self._n_waiting]
            group[self._n_waiting : self._n_waiting + len(taken)] = taken
            self._n_waiting += len(taken)
            stored = stored[len(taken) :]
            if self._n_waiting == len(group):
                self._write_group()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            with closing(self._file), closing(self._parquet), self._encoder:
                if kind is None:
                    self._finish()
        except BaseException as failure:
            self._whole.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._whole.__exit__(kind, error, trace)  # type: ignore[arg-type]
        if kind is None:
            write_json(self.path.with_suffix(".json"), asdict(self._record()))

    def _finish(self) -> None:
        """Write what waits."""
        if self._n_waiting:
            self._write_group()
        written = self._next_image - self.header.first_image
        if written != self.header.n_images:
            raise StoreError(f"{self.path}: {written} pictures came, {self.header.n_images} were announced")
        if self._encoded is not None:
            self._encoded.result()

    def _refuse(self, stored: torch.Tensor) -> None:
        place = self._next_image - self.header.first_image + self._n_waiting
        place += int(stored.isfinite().all(dim=2).all(dim=1).int().argmin())
        name = f" ({self.name_of(place)})" if self.name_of else ""
        point = HookPoint(self.header.layer, self.header.hook)
        raise StoreError(
            f"{self.path}: image_id {self.header.first_image + place}{name} has NaN or infinite activations at layer "
            f"{point} as {self.header.dtype}; look at that picture, or set the model's dtype: float32"
        )

    def _record(self) -> ShardRecord:
        return ShardRecord(
            file=self.path.name,
            fingerprint=self.header.fingerprint,
            first_image=self.header.first_image,
            n_images=self.header.n_images,
            rows=self.header.n_images * self.header.choice.n_rows,
            bytes=self.path.stat().st_size,
            sha256=self._file.sha256.hexdigest(),
            footer_sha256=footer_sha256(self.path),
            minimum=self.minimum,
            maximum=self.maximum,
            nan_count=0,  # a value that is not finite never gets here
        )

    def _write_group(self) -> None:
        """Have the gathered rows written; raises what writing those before them has raised."""
        if self._encoded is not None:
            self._encoded.result()
        images = range(self._next_image, self._next_image + self._n_waiting)
        self._encoded = self._encoder.submit(self._encode, self._groups[0][: self._n_waiting], images)
        self._groups.reverse()
        self._next_image, self._n_waiting = images.stop, 0

    def _encode(self, group: torch.Tensor, images: range) -> None:
        schema, rows = self.header.schema, group.shape[0] * group.shape[1]
        ids = np.repeat(np.arange(images.start, images.stop, dtype=np.int32), group.shape[1])
        tokens = self.header.choice.ids(images).ravel()
        buffer = pa.py_buffer(group.view(torch.uint8).numpy())
        activation = pa.Array.from_buffers(schema.field("activation").type, rows, [None, buffer])
        self._parquet.write_table(pa.table([ids, tokens, activation], schema=schema), row_group_size=rows)


class BackgroundWriter:
    """Feeds several shard writers from one thread, so that the forward pass never waits for the disk."""

    def __init__(self, writers: dict[HookPoint, ShardWriter], waiting: int = 4) -> None:
        self._writers = writers
        self._queue: queue.Queue[dict[HookPoint, OnHost] | None] = queue.Queue(maxsize=waiting)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="shard writer", daemon=True)
        self._thread.start()

    def add(self, batch: dict[HookPoint, torch.Tensor]) -> None:
        """Hand over one batch, hook point to (n_images, n_rows, d_model); raises what writing has raised."""
        if self._failure is not None:
            raise self._failure
        self._queue.put(
            {point: OnHost(rows, DTYPES[self._writers[point].header.dtype]) for point, rows in batch.items()}
        )

    def close(self) -> None:
        """Wait until all is written; raises what writing has raised."""
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            if self._failure is not None:
                continue  # drain, so that the sender never blocks
            try:
                for point, activations in batch.items():
                    self._writers[point].add(activations.tensor())
            except BaseException as failure:  # handed to the main thread
                self._failure = failure


class OnHost:
    """A tensor on its way from a GPU to this machine's memory, while the GPU goes on; one that is here stays.

    Parameters
    ----------
    tensor
        What to bring.
    dtype
        What a GPU turns it into first: there that takes no time, and half as much may be left to bring.
    """

    def __init__(self, tensor: torch.Tensor, dtype: torch.dtype) -> None:
        self._tensor, self._event = tensor.detach(), None
        if tensor.is_cuda:
            there = self._tensor.to(dtype)
            self._tensor = torch.empty(there.shape, dtype=dtype, pin_memory=True)
            self._tensor.copy_(there, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def tensor(self) -> torch.Tensor:
        """Wait until it is here."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor
