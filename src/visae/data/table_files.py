"""Read a table of pictures, CSV or Parquet, in batches: every cell as a text, and what is odd about it said."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from visae.data.compressions import decompressor
from visae.data.labels import is_missing
from visae.data.noticed import Noticed
from visae.errors import DataError

COLUMNS = ("path", "split", "label", "label_name", "mask", "pair", "cause", "region", "group")
# Those whose values may be numbers.
_NUMBERED = ("label", "group")
_PATHS = ("path", "mask", "region")
_BATCH_ROWS = 4096  # of Parquet
_BLOCK_BYTES = 1 << 16  # of CSV: as texts in Python, its rows take tens of times that
# How pandas calls a column of row numbers that nobody meant to keep.
_INDEX = re.compile(r"\s*|Unnamed: \d+.*|__index_level_\d+__|level_\d+|index")
_EXACT = 2**53  # from there on, floats are no exact integers
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
_FOREIGN = {
    b"PAR1": "it is a Parquet file; let its name end in .parquet",
    b"PK\x03\x04": "it is a zip file or a spreadsheet; save it as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet; save it as CSV in UTF-8",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
}


class Row(NamedTuple):
    """One row as it is written; what its table has no column for, or no value, is None.

    `place` names it in messages, with cells that are written as missing.
    """

    place: str
    path: str | None
    split: str | None
    label: str | None
    label_name: str | None
    mask: str | None
    pair: str | None
    cause: str | None
    region: str | None
    group: str | None


@dataclass(frozen=True)
class Table:
    """A table whose columns are known to be right.

    Attributes
    ----------
    columns
        Their names, in the order of the file.
    text_labels
        Whether labels are kept as texts, though they may look like integers.
    spaced
        Whether names of columns stand between spaces; cells do too then.
    """

    file: Path
    columns: tuple[str, ...]
    text_labels: bool
    spaced: bool

    @classmethod
    def open(cls, file: Path) -> Table:
        """Check the columns; raises DataError where they are wrong."""
        kind = file.suffix.lower()
        if kind not in (".csv", ".parquet"):
            raise DataError(f"file: {file}: a table is a .csv or .parquet file")
        if kind == ".csv":
            _check_start(file)
        try:
            if kind == ".parquet":
                schema = pyarrow.parquet.read_schema(file)
            else:
                with _opened_csv(file) as reader:
                    schema = reader.schema
        except (pyarrow.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
        names = tuple(name.strip() for name in schema.names)
        _check_names(file, names)
        types = {name: schema.field(name).type for name in names} if kind == ".parquet" else {}
        for name, found in types.items():
            if not (is_text(found) or pyarrow.types.is_null(found) or (name in _NUMBERED and _is_number(found))):
                wanted = "integers or texts" if name in _NUMBERED else "texts"
                raise DataError(f"file: {file}: column {name} has type {found}; make it {wanted}")
        text_labels = "label" in types and is_text(types["label"])
        return cls(file, names, text_labels, names != tuple(schema.names))

    def rows(self, noticed: Noticed) -> Iterator[Row]:
        """Read all rows, a batch at a time.

        An empty text is missing, and so is what says that it is, such as `NaN`: these are counted.
        """
        number = 0
        try:
            for batch in self._batches():
                odd: dict[int, str] = {}
                columns = {
                    name: self._cells(name, batch.column(place).to_pylist(), number, odd, noticed)
                    for place, name in enumerate(self.columns)
                }
                nothing: list[str | None] = [None] * batch.num_rows
                for values in zip(*(columns.get(name, nothing) for name in COLUMNS), strict=True):
                    number += 1
                    yield Row(f"row {number}{odd.get(number, '')}", *values)
        except (pyarrow.ArrowException, OSError) as error:
            raise _unreadable(self.file, error) from error
        if not number:
            raise DataError(f"file: {self.file}: it has no rows")

    def _cells(
        self, name: str, values: list[Any], number: int, odd: dict[int, str], noticed: Noticed
    ) -> list[str | None]:
        """Texts of a column, which follow row `number`; what is written as missing is put into `odd` by row."""
        texts = ["" if value is None else value if isinstance(value, str) else _number_text(value) for value in values]
        for row, text in enumerate(texts, start=number + 1):
            if "\n" in text or "\r" in text:
                raise DataError(
                    f"file: {self.file}: row {row}: {name} has a line break; is a quotation mark not closed there?"
                )
        if self.spaced or name not in _PATHS:
            texts = [text.strip() for text in texts]
        cells = [None if is_missing(text) else text for text in texts]
        for row, (text, cell) in enumerate(zip(texts, cells, strict=True), start=number + 1):
            if cell is None and text.strip():
                odd[row] = f"{odd.get(row, '')} ({name} is {text!r}, which counts as empty)"
                example = f"{text!r} in row {row}"
                noticed.count("note", f"{{n}} cells of the column {name} count as empty, such as {{example}}", example)
        return cells

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        if self.file.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetFile(self.file) as parquet:
                yield from parquet.iter_batches(_BATCH_ROWS, use_threads=False)
        else:
            with _opened_csv(self.file) as reader:
                yield from reader


def _opened_csv(file: Path) -> pyarrow.csv.CSVStreamingReader:
    """Open a CSV file whose cells are all texts."""
    with pyarrow.csv.open_csv(file, parse_options=_PARSE) as inferred:
        names = inferred.schema.names
    as_texts = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string()))
    in_blocks = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES)
    return pyarrow.csv.open_csv(file, in_blocks, parse_options=_PARSE, convert_options=as_texts)


# A line break in a cell is found then, and refused with its row; else the rows around it would be ragged.
_PARSE = pyarrow.csv.ParseOptions(newlines_in_values=True)


def _check_start(file: Path) -> None:
    """Refuse what is named .csv and is none, or has other separators than commas."""
    with file.open("rb") as opened:
        start = opened.read(1 << 16)
    if command := decompressor(start):
        raise DataError(f"file: {file}: it is compressed; run `{command}` on it first")
    for magic, problem in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"file: {file}: {problem}")
    if b"\0" in start:
        raise DataError(f"file: {file}: it has bytes that are no text, as UTF-16 has; save it as UTF-8")
    header = (start.decode("utf-8-sig", errors="replace").splitlines() or [""])[0]
    if header.startswith(("#", "sep=")):
        raise DataError(f"file: {file}: its first line names no columns but is {header[:40]!r}; remove it")
    if "," not in header or "path" not in _plain_names(header, ","):
        for separator, named in _SEPARATORS.items():
            if separator in header and "path" in _plain_names(header, separator):
                raise DataError(
                    f"file: {file}: its columns are separated by {named}; write it with commas (pandas: "
                    "to_csv(sep=',', index=False))"
                )


def _plain_names(header: str, separator: str) -> list[str]:
    return [name.strip().strip("\"'").strip().casefold() for name in header.split(separator)]


def _check_names(file: Path, names: tuple[str, ...]) -> None:
    """Refuse a table without a path, or with columns that visae does not know."""
    where, known = f"file: {file}", f"a table has {', '.join(COLUMNS)} and no others"
    for place, name in enumerate(names, start=1):
        if _INDEX.fullmatch(name):
            called = f"is called {name}" if name else "has no name"
            if not name and place == len(names) > 1:
                raise DataError(f"{where}: column {place}, the last, {called}: remove the comma at the ends of lines")
            raise DataError(
                f"{where}: column {place} {called}: pandas writes row numbers so; leave them out with index=False in "
                f"to_csv or to_parquet ({known})"
            )
        if name not in COLUMNS and name.casefold() in COLUMNS:
            raise DataError(f"{where}: the column {name}: write its name in lower case: {name.casefold()}")
        if names.count(name) > 1:
            raise DataError(f"{where}: {names.count(name)} columns are called {name}; leave one")
    if "path" not in names:
        raise DataError(
            f"{where}: it has no column path (but {', '.join(names)}); the first line of a CSV file names the columns"
        )
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise DataError(f"{where}: unknown columns: {', '.join(unknown)}; {known}")


def is_text(kind: pyarrow.DataType) -> bool:
    """Whether a column's type is one of texts."""
    if pyarrow.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind)


def _is_number(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_dictionary(kind):
        return _is_number(kind.value_type)
    return pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind)


def _number_text(value: int | float | Decimal) -> str:
    """A label or group of Parquet as a text: whole ones without a point, the missing one of floats as none."""
    if math.isnan(value):
        return ""
    return str(int(value)) if -_EXACT < value < _EXACT and value == int(value) else str(value)


def _unreadable(file: Path, error: Exception) -> DataError:
    text = str(error).splitlines()[0]
    hint = "; save it as UTF-8" if "utf8" in text.casefold().replace("-", "") else ""
    return DataError(f"file: {file}: it cannot be read as a table: {text}{hint}")
