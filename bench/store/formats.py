"""Ways to keep a float32 column in Parquet: how fast it comes back as an array, and how large it is.

Read as visae reads: a memory-mapped file, one row group after the other, one column, no threads of Arrow's; each
comes back as an array (rows, d_model) and its first and last value are looked at. Cold runs begin with the file out of
the page cache.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.disk import drop_pages
from bench.harness import Measurement, interleaved, measurement, median_ratio
from visae.activations.schema import ROWS_PER_GROUP, as_tensor

ROWS_IN_GROUPS = (2048, ROWS_PER_GROUP, 32768)
# What visae writes: a plain column of fixed-size binary, a row group of about 8192 rows.
CHOSEN = ("fixed-size binary, plain", ROWS_PER_GROUP)

Options = dict[str, object]
PLAIN: Options = {"compression": "none", "use_dictionary": False}
ZSTD: Options = {"compression": "zstd", "use_dictionary": False}
SPLIT: Options = {**ZSTD, "use_byte_stream_split": ["activation.list.element"]}
FORMATS: dict[str, tuple[str, Options]] = {
    CHOSEN[0]: ("binary", PLAIN),
    "fixed-size binary, zstd": ("binary", ZSTD),
    "FixedSizeList<float32>": ("list", PLAIN),
    "FixedSizeList, split, zstd": ("list", SPLIT),
}


def measure(folder: Path, values: np.ndarray, repetitions: int) -> list[Measurement]:
    """Write `values`, float32 (rows, d_model), in every format and row group size, and read them all in turns."""
    folder.mkdir(parents=True)
    files = {
        (name, rows): _written(folder / f"{number}-{rows}" / "file.parquet", values, rows, *how)
        for number, (name, how) in enumerate(FORMATS.items())
        for rows in ROWS_IN_GROUPS
    }
    rows_out = []
    for state in ("warm", "cold"):
        contenders = {
            f"{name}, {rows} rows": _reading(path, FORMATS[name][0], values, cold=state == "cold")
            for (name, rows), path in files.items()
        }
        samples = interleaved(contenders, repetitions)
        chosen = f"{CHOSEN[0]}, {CHOSEN[1]} rows"
        best = max(samples, key=lambda name: median(samples[name]))
        for name, found in samples.items():
            label = "format, chosen" if name == chosen else "format"
            ratio = median_ratio(samples, name, best)
            rows_out.append(measurement(f"{label}, {state}: {name}", median(found), "MB/s", ratio))
    smallest = min(path.stat().st_size for path in files.values())
    for (name, rows), path in files.items():
        label = "format, chosen" if (name, rows) == CHOSEN else "format"
        size = path.stat().st_size
        per_value = size / values.size
        rows_out.append(measurement(f"{label}, size: {name}, {rows} rows", per_value, "bytes/value", size / smallest))
    return rows_out


def _written(path: Path, values: np.ndarray, rows_in_group: int, kind: str, options: Options) -> Path:
    path.parent.mkdir()
    d_model = values.shape[1]
    if kind == "binary":
        buffer = pa.py_buffer(np.ascontiguousarray(values))
        column = pa.Array.from_buffers(pa.binary(4 * d_model), len(values), [None, buffer])
    else:
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), d_model)
    schema = pa.schema([pa.field("activation", column.type, nullable=False)])
    table = pa.Table.from_arrays([column], schema=schema)
    pq.write_table(table, path, row_group_size=rows_in_group, write_statistics=False, data_page_size=1 << 24, **options)
    return path


def _reading(path: Path, kind: str, values: np.ndarray, cold: bool) -> Callable[[], float]:
    """Return what reads a file whole once and gives megabytes of float32 a second."""

    def run() -> float:
        gc.collect()
        if cold:
            drop_pages(path.parent)
        started = time.perf_counter()
        file, taken = pq.ParquetFile(path, memory_map=True), 0
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["activation"], use_threads=False).column(0).chunk(0)
            array = _array(column, kind, values.shape[1])
            assert array[0, 0] == values[taken, 0]
            taken += len(array)
            assert array[-1, -1] == values[taken - 1, -1]
        seconds = time.perf_counter() - started
        assert taken == len(values)
        return values.nbytes / seconds / 1e6

    return run


def _array(column: pa.Array, kind: str, d_model: int) -> np.ndarray:
    if kind == "binary":
        return as_tensor(column, d_model, "float32").numpy()
    return column.flatten().to_numpy(zero_copy_only=True).reshape(-1, d_model)
