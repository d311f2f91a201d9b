"""A file that is hashed while it is written."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path


class HashedFile:
    """A file, written from first to last byte, whose writing and hashing are done in two threads.

    Parameters
    ----------
    path
        Where; what is there is replaced.
    waiting
        Pieces that may wait to be written and hashed; then `write` waits.

    Attributes
    ----------
    sha256
        Of what was written, once it is closed.
    """

    def __init__(self, path: Path, waiting: int = 4) -> None:
        self.sha256, self.closed = hashlib.sha256(), False
        self._file, self._most = path.open("wb", buffering=0), waiting
        self._writing, self._hashing = ThreadPoolExecutor(1, "shard file"), ThreadPoolExecutor(1, "shard hash")
        self._waiting: deque[tuple[Future[None], Future[None]]] = deque()

    def write(self, piece: bytes) -> int:
        """Have a piece written; raises what writing those before it has raised."""
        while len(self._waiting) >= self._most:
            self._take_one()
        hashed = self._hashing.submit(self.sha256.update, piece)
        self._waiting.append((self._writing.submit(self._append, piece), hashed))
        return len(piece)

    def flush(self) -> None:
        """Wait until all is written; raises what writing has raised."""
        while self._waiting:
            self._take_one()

    def close(self) -> None:
        """Wait until all is written, and close; raises what writing has raised."""
        if self.closed:
            return
        self.closed = True
        try:
            self.flush()
        finally:
            self._writing.shutdown()
            self._hashing.shutdown()
            self._file.close()

    def _take_one(self) -> None:
        for done in self._waiting.popleft():
            done.result()

    def _append(self, piece: bytes) -> None:
        start = self._file.tell()
        left = memoryview(piece)
        while left:
            left = left[self._file.write(left) :]
        if hasattr(os, "posix_fadvise"):
            # Linux then begins to bring it to disk, instead of all at once when the whole file is flushed.
            os.posix_fadvise(self._file.fileno(), start, len(piece), os.POSIX_FADV_DONTNEED)
