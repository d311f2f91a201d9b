"""List the pictures of a table: a CSV or Parquet file with a row a picture, read in batches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from visae.config.settings import Settings, TableSettings
from visae.data.labels import Labels
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits, in_order
from visae.errors import DataError

_COLUMNS = ("path", "split", "label", "label_name", "mask")
_BATCH_ROWS = 4096  # of Parquet
_BLOCK_BYTES = 1 << 16  # of CSV: as texts in Python, its rows take tens of times that


class _Row(NamedTuple):
    """One row as it is written; what its table has no column for is None."""

    number: int
    path: str | None
    split: str | None
    label: str | None
    label_name: str | None
    mask: str | None


def list_table(settings: TableSettings, seed: int) -> Listing:
    """List the pictures of a table in its order, split by split.

    Raises
    ------
    DataError
        If the table or its columns are not as they have to be.
    """
    table = _Table.open(existing(settings.file, "file", folder=False))
    root = existing(settings.root, "root") if settings.root is not None else table.file.parent
    where = f"file: {table.file}"
    labels = Labels(where, settings.classes, always_text=table.text_labels, zero_based=settings.zero_based)
    splits = set()
    for row in table.rows():
        if row.path is None:
            raise DataError(f"{where}: row {row.number}: it has no path")
        if "split" in table.columns and row.split not in splits:
            splits.add(_checked_split(row, where))
        labels.add(f"row {row.number}", row.label, row.label_name, row.mask)
    classes = labels.classes()

    def absolute(path: str) -> str:
        return os.path.abspath(root / path)

    def picture(row: _Row) -> Picture:
        number, name = labels.of(row.label)
        mask = None if row.mask is None else absolute(row.mask)
        return Picture(absolute(str(row.path)), row.split or "", number, name, mask)

    def of_splits() -> Iterator[Picture]:
        for split in in_order(splits):
            yield from (picture(row) for row in table.rows() if row.split == split)

    def with_keys() -> Iterator[tuple[str, Picture]]:
        for row in table.rows():
            yield str(row.path), picture(row)

    if splits:
        return Listing(of_splits(), classes)
    check_shares(settings)
    return Listing(in_drawn_splits(with_keys, settings, seed, where), classes)


def _checked_split(row: _Row, where: str) -> str:
    if row.split is None:
        raise DataError(f"{where}: row {row.number}: it has no split; name one in every row, or leave the column out")
    if not re.fullmatch(Settings.wildcard_pattern.removesuffix("$"), row.split):
        raise DataError(
            f"{where}: row {row.number}: the split {row.split!r}: a name may hold letters, digits, - and _ only"
        )
    return row.split


@dataclass(frozen=True)
class _Table:
    """A table whose columns are known to be right."""

    file: Path
    columns: tuple[str, ...]
    text_labels: bool

    @classmethod
    def open(cls, file: Path) -> _Table:
        """Check the columns; raises DataError where they are wrong."""
        kind = file.suffix.lower()
        if kind not in (".csv", ".parquet"):
            raise DataError(f"file: {file}: a table is a .csv or .parquet file")
        try:
            schema = pyarrow.parquet.read_schema(file) if kind == ".parquet" else pyarrow.csv.open_csv(file).schema
        except (pyarrow.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
        names = tuple(schema.names)
        unknown = sorted(set(names) - set(_COLUMNS))
        if "path" not in names:
            raise DataError(f"file: {file}: it has no column path (but {', '.join(names)})")
        if unknown or len(set(names)) < len(names):
            wrong = ", ".join(unknown) or "two of one name"
            raise DataError(f"file: {file}: unknown columns: {wrong}; a table has {', '.join(_COLUMNS)} and no others")
        types = {name: schema.field(name).type for name in names} if kind == ".parquet" else {}
        for name, found in types.items():
            if not (_is_text(found) or pyarrow.types.is_null(found)) and not (
                name == "label" and pyarrow.types.is_integer(found)
            ):
                wanted = "integers or texts" if name == "label" else "texts"
                raise DataError(f"file: {file}: column {name} has type {found}; make it {wanted}")
        return cls(file, names, "label" in types and _is_text(types["label"]))

    def rows(self) -> Iterator[_Row]:
        """Read all rows, a batch at a time; an empty text is missing."""
        number = 0
        try:
            for batch in self._batches():
                columns = {name: _texts(batch.column(name)) for name in self.columns}
                nothing: list[str | None] = [None] * batch.num_rows
                for values in zip(*(columns.get(name, nothing) for name in _COLUMNS), strict=True):
                    number += 1
                    yield _Row(number, *values)
        except (pyarrow.ArrowException, OSError) as error:
            raise _unreadable(self.file, error) from error
        if not number:
            raise DataError(f"file: {self.file}: it has no rows")

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        if self.file.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetFile(self.file) as parquet:
                yield from parquet.iter_batches(_BATCH_ROWS, use_threads=False)
        else:
            as_texts = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(self.columns, pyarrow.string()))
            in_blocks = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES)
            with pyarrow.csv.open_csv(self.file, in_blocks, convert_options=as_texts) as reader:
                yield from reader


def _is_text(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind)


def _texts(column: pyarrow.Array) -> list[str | None]:
    return [None if value is None or value == "" else str(value) for value in column.to_pylist()]


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"file: {file}: it cannot be read as a table: {str(error).splitlines()[0]}")
