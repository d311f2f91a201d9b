"""Write the index and the list of what was skipped, row group by row group."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from visae.data.checks import Checked
from visae.data.pictures import Picture
from visae.data.tally import Tally

COLUMNS = pyarrow.schema(
    {
        "image_id": pyarrow.int32(),
        "path": pyarrow.large_string(),
        "split": pyarrow.large_string(),
        "label": pyarrow.int32(),
        "label_name": pyarrow.large_string(),
        "mask_path": pyarrow.large_string(),
        "width": pyarrow.int32(),
        "height": pyarrow.int32(),
        "sha256": pyarrow.large_string(),
        "pair": pyarrow.large_string(),
        "cause": pyarrow.large_string(),
        "region_path": pyarrow.large_string(),
        "group": pyarrow.large_string(),
    }
)
_ROW_GROUP = 8192


def write_rows(
    checked: Iterable[tuple[Picture, Checked]], tally: Tally, index_path: Path, skipped_path: Path, base: Path | None
) -> None:
    """Write an index and the pictures that it skips, and count both; a row group is held at a time.

    Parameters
    ----------
    checked
        In the order of image ids.
    base
        Folder that paths are written relative to; None leaves them absolute.
    """
    rows: list[tuple[Any, ...]] = []
    with (
        pyarrow.parquet.ParquetWriter(index_path, COLUMNS, compression="zstd") as index,
        skipped_path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as skipped_file,
    ):
        skipped = csv.writer(skipped_file, lineterminator="\n")
        skipped.writerow(("path", "reason"))
        for picture, found in checked:
            if found.unreadable:
                skipped.writerow((picture.path, found.unreadable))
                tally.skip(picture.path, found.unreadable)
                continue
            rows.append(_row(tally.n_images.total(), picture, found, base))
            tally.add(picture, found)
            if len(rows) == _ROW_GROUP:
                _write(index, rows)
        _write(index, rows)


def _row(image_id: int, picture: Picture, found: Checked, base: Path | None) -> tuple[Any, ...]:
    path, mask = _stored(picture.path, base), picture.mask and _stored(picture.mask, base)
    label = picture.label, picture.label_name
    paired = picture.pair, picture.cause, picture.region and _stored(picture.region, base)
    contents = found.width, found.height, found.sha256
    return (image_id, path, picture.split, *label, mask, *contents, *paired, picture.group)


def _stored(path: str, base: Path | None) -> str:
    return path if base is None else Path(path).relative_to(base).as_posix()


def _write(index: pyarrow.parquet.ParquetWriter, rows: list[tuple[Any, ...]]) -> None:
    """Write held rows as a row group, and hold none."""
    if rows:
        columns = zip(zip(*rows, strict=True), COLUMNS.types, strict=True)
        arrays = [pyarrow.array(values, kind) for values, kind in columns]
        index.write_table(pyarrow.Table.from_arrays(arrays, schema=COLUMNS))
        rows.clear()
