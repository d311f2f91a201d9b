"""Single cells of Parquet files, read where they lie and in any order, with a bounded number of bytes held.

A row group is read from its start, a window of rows at a time, and the windows read last are held: pictures that are
taken in the order of their rows, by one thread or by several that are near each other, are read once.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

_WINDOW_BYTES = 8 << 20
_WINDOW_ROWS = 128  # of one value that many rows share, a file says the bytes of one
_HELD_BYTES = 64 << 20
_OPEN_FILES = 8
_BUFFER_BYTES = 1 << 20  # without a buffer, all of a row group's column is read at once

Identity = tuple[int, int, int, int]


def opened_parquet(path: str | os.PathLike[str]) -> pyarrow.parquet.ParquetFile:
    """Open a Parquet file to be read in small parts; raises what pyarrow raises."""
    return pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def batches(
    file: pyarrow.parquet.ParquetFile, columns: list[str], groups: list[int], n_rows: int
) -> Iterator[pyarrow.RecordBatch]:
    """Read some row groups, at most `n_rows` rows at a time."""
    return file.iter_batches(n_rows, row_groups=groups, columns=columns, use_threads=False)


def cell(path: str, leaf: int, row: int) -> bytes | None:
    """Bytes of a cell; None where it is empty.

    Parameters
    ----------
    leaf
        Number of the column among those that Parquet stores: a struct has one for each of its fields.
    row
        Number of the row in the file, from 0.

    Raises
    ------
    OSError
        If there is no such file or cell, or the file is damaged there.
    """
    with _LOCK:
        try:
            return _file(path).cell(leaf, row)
        except pyarrow.ArrowException as error:  # of those, some are no OSError
            raise OSError(f"{path}: row {row + 1} cannot be read: {str(error).splitlines()[0]}") from error


@dataclass
class _Cursor:
    """Where the reading of a row group's column is: the next row within the group, and what gives further windows."""

    group: int
    row: int
    windows: Iterator[pyarrow.RecordBatch]


class _File:
    """An open file with one cursor a column."""

    def __init__(self, path: str, identity: Identity) -> None:
        self.path, self.identity = path, identity
        self._parquet = opened_parquet(path)
        self._metadata = self._parquet.metadata
        self._starts = [0]  # of row groups
        for group in range(self._metadata.num_row_groups):
            self._starts.append(self._starts[-1] + self._metadata.row_group(group).num_rows)
        self._cursors: dict[int, _Cursor] = {}

    def close(self) -> None:
        self._cursors.clear()
        self._parquet.close()

    def cell(self, leaf: int, row: int) -> bytes | None:
        if row >= self._starts[-1] or leaf >= self._metadata.num_columns:
            raise OSError(f"{self.path} has no row {row + 1} in that column; it was changed after it was indexed")
        group = bisect_right(self._starts, row) - 1
        within = row - self._starts[group]
        held = _HELD.find((self.identity, leaf, group), within) or self._read(leaf, group, within)
        return held[0][held[1]].as_py()

    def _read(self, leaf: int, group: int, row: int) -> tuple[Any, int]:
        """Read on until a window has a row of a group, from the group's start where that is passed already."""
        cursor = self._cursors.pop(leaf, None)
        if cursor is None or cursor.group != group or cursor.row > row:
            cursor = _Cursor(group, 0, self._windows(leaf, group))
        while cursor.row <= row:
            batch = next(cursor.windows, None)
            if batch is None:
                raise OSError(f"{self.path}: row group {group + 1} has fewer rows than the file says")
            values, start = _only_leaf(batch.column(0)), cursor.row
            _HELD.add((self.identity, leaf, group, start), values)
            cursor.row += len(values)
        self._cursors[leaf] = cursor  # after an error there is none
        return values, row - start

    def _windows(self, leaf: int, group: int) -> Iterator[pyarrow.RecordBatch]:
        column = self._metadata.row_group(group).column(leaf)
        of_bytes = _WINDOW_BYTES * column.num_values // max(1, column.total_uncompressed_size)
        n_rows = max(1, min(_WINDOW_ROWS, of_bytes))
        return batches(self._parquet, [column.path_in_schema], [group], n_rows)


def _only_leaf(values: Any) -> Any:
    """What lies within structs of one field each; an empty struct has an empty field."""
    while pyarrow.types.is_struct(values.type):
        values = values.flatten()[0]
    return values


class _Windows:
    """The windows read last, by file, column, row group and first row."""

    def __init__(self) -> None:
        self._windows: OrderedDict[tuple[Identity, int, int, int], Any] = OrderedDict()
        self._n_bytes = 0

    def find(self, key: tuple[Identity, int, int], row: int) -> tuple[Any, int] | None:
        """The window of a row within its group, and the row's place therein."""
        for held, values in reversed(self._windows.items()):
            if held[:3] == key and 0 <= row - held[3] < len(values):
                self._windows.move_to_end(held)
                return values, row - held[3]
        return None

    def add(self, key: tuple[Identity, int, int, int], values: Any) -> None:
        """Hold one more, and let go of the oldest where they are too many bytes; the newest is held in any case."""
        if key in self._windows:
            self._n_bytes -= self._windows.pop(key).nbytes
        self._windows[key] = values
        self._n_bytes += values.nbytes
        while self._n_bytes > _HELD_BYTES and len(self._windows) > 1:
            self._n_bytes -= self._windows.popitem(last=False)[1].nbytes


def _file(path: str) -> _File:
    """The open file of a path; one that was changed is opened anew."""
    found = os.stat(path)
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    file = _FILES.pop(path, None)
    if file is not None and file.identity != identity:
        file.close()
        file = None
    _FILES[path] = file = file or _File(path, identity)
    while len(_FILES) > _OPEN_FILES:
        _FILES.popitem(last=False)[1].close()
    return file


_FILES: OrderedDict[str, _File] = OrderedDict()
_HELD = _Windows()
_LOCK = threading.Lock()


def _start_anew() -> None:
    """In a forked process: places in files are shared with the parent, and a lock that was held stays so."""
    global _FILES, _HELD, _LOCK
    _FILES, _HELD, _LOCK = OrderedDict(), _Windows(), threading.Lock()


os.register_at_fork(after_in_child=_start_anew)
