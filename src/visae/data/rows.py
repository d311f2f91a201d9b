"""Write the index and the list of what was skipped, row group by row group."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from visae.data.checks import Checked
from visae.data.pictures import Picture
from visae.errors import DataError

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
    }
)
_ROW_GROUP = 8192
_NAMED = 5  # files named in an error


@dataclass
class Tally:
    """Counts over a data set, and the first few of what is wrong."""

    n_images: Counter[str] = field(default_factory=Counter)
    n_skipped: int = 0
    n_wrong_masks: int = 0
    skipped: list[str] = field(default_factory=list)
    wrong_masks: list[str] = field(default_factory=list)

    def skip(self, path: str, reason: str) -> None:
        """Count an unreadable picture."""
        self.n_skipped += 1
        if self.n_skipped <= _NAMED:
            self.skipped.append(f"{path} ({reason})")

    def count_wrong_mask(self, problem: str) -> None:
        """Count a wrong mask."""
        self.n_wrong_masks += 1
        if self.n_wrong_masks <= _NAMED:
            self.wrong_masks.append(problem)

    def refuse(self, max_unreadable: float, skipped_path: Path) -> None:
        """Raise DataError where masks are wrong or too much is unreadable."""
        if self.n_wrong_masks:
            more = f" (and {self.n_wrong_masks - _NAMED} more)" if self.n_wrong_masks > _NAMED else ""
            raise DataError(f"{self.n_wrong_masks} masks are wrong: {'; '.join(self.wrong_masks)}{more}")
        n_found = self.n_images.total() + self.n_skipped
        if self.n_skipped > max_unreadable * n_found or self.n_skipped == n_found:
            raise DataError(
                f"{self.n_skipped} of {n_found} pictures are unreadable, more than max_unreadable: {max_unreadable} "
                f"allows; all are listed in {skipped_path}, first {'; '.join(self.skipped)}"
            )


def write_rows(
    checked: Iterable[tuple[Picture, Checked]], index_path: Path, skipped_path: Path, base: Path | None
) -> Tally:
    """Write an index and what it leaves out; a row group is held at a time.

    Parameters
    ----------
    checked
        In the order of image ids.
    base
        Folder that paths are written relative to; None leaves them absolute.
    """
    tally = Tally()
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
            if found.mask_problem:
                tally.count_wrong_mask(found.mask_problem)
            rows.append(_row(tally.n_images.total(), picture, found, base))
            tally.n_images[picture.split] += 1
            if len(rows) == _ROW_GROUP:
                _write(index, rows)
        _write(index, rows)
    return tally


def _row(image_id: int, picture: Picture, found: Checked, base: Path | None) -> tuple[Any, ...]:
    path, mask = _stored(picture.path, base), picture.mask and _stored(picture.mask, base)
    label = picture.label, picture.label_name
    return (image_id, path, picture.split, *label, mask, found.width, found.height, found.sha256)


def _stored(path: str, base: Path | None) -> str:
    return path if base is None else Path(path).relative_to(base).as_posix()


def _write(index: pyarrow.parquet.ParquetWriter, rows: list[tuple[Any, ...]]) -> None:
    """Write held rows as a row group, and hold none."""
    if rows:
        columns = zip(zip(*rows, strict=True), COLUMNS.types, strict=True)
        arrays = [pyarrow.array(values, kind) for values, kind in columns]
        index.write_table(pyarrow.Table.from_arrays(arrays, schema=COLUMNS))
        rows.clear()


def shared_between_splits(index_path: Path, n_images: Counter[str]) -> int:
    """Count pictures whose very bytes are in more than one split: what would make a measurement too good.

    Of every sha256 the first 64 bits are compared: 9 bytes a picture are held, and among a million pictures two that
    differ agree in them with a probability of 3e-8.

    Parameters
    ----------
    index_path
        An index with hashes.
    n_images
        Pictures of each split, in the order of their ids.
    """
    starts = np.empty(n_images.total(), dtype=np.uint64)
    first = 0
    with pyarrow.parquet.ParquetFile(index_path) as parquet:
        for batch in parquet.iter_batches(_ROW_GROUP, columns=["sha256"]):
            hashes = batch.column(0).to_pylist()
            starts[first : first + len(hashes)] = [int(sha256[:16], 16) for sha256 in hashes]
            first += len(hashes)
    splits = np.repeat(np.arange(len(n_images), dtype=np.int16), list(n_images.values()))
    order = np.argsort(starts, kind="stable")
    starts, splits = starts[order], splits[order]
    # Ids of a split are contiguous, so splits do not fall within equal hashes: the first and last decide.
    groups = np.flatnonzero(np.append(True, starts[1:] != starts[:-1]))
    ends = np.append(groups[1:], len(starts))
    return int((ends - groups)[splits[groups] != splits[ends - 1]].sum())
