"""The rows of a Parquet file of pictures, without the pictures' bytes: where these lie, their names and labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from visae.config.settings import HuggingFaceSettings
from visae.data.contents import START, content_kind
from visae.data.locators import locator
from visae.data.noticed import Noticed
from visae.data.parquet_cells import batches, opened_parquet
from visae.data.parquet_columns import Columns, LabelColumn, PictureColumn, columns_of
from visae.errors import DataError

_BATCH_ROWS = 4096
_BATCH_PICTURES = 16
_LARGE_GROUP = 256 << 20  # bytes of pictures; those of the hub have up to 100 MB
_MAGIC = b"PAR1"
_SMALLEST = 12  # bytes: at both ends the four above, and the length of what stands at the end


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `number` counts from 0, `picture` and `mask` are locators."""

    number: int
    picture: str
    mask: str | None
    label: str | None
    label_name: str | None
    group: str | None


@dataclass(frozen=True)
class Shard:
    """A Parquet file whose columns are known to be right.

    Attributes
    ----------
    where
        Key and file, named in errors.
    leaves
        Number of each column that Parquet stores, by its name there.
    """

    file: Path
    where: str
    columns: Columns
    leaves: dict[str, int]

    @classmethod
    def open(cls, file: Path, settings: HuggingFaceSettings, where: str) -> Shard:
        """Read what stands at its end; raises DataError where it is no whole Parquet file, or columns are wrong."""
        _check_ends(file, where)
        try:
            metadata = pyarrow.parquet.read_metadata(file)
            columns = columns_of(metadata.schema.to_arrow_schema(), settings, where)
        except (pyarrow.ArrowException, OSError) as error:
            raise _damaged(where, error) from error
        leaves = {metadata.schema.column(leaf).path: leaf for leaf in range(metadata.num_columns)}
        return cls(file, where, columns, leaves)

    @property
    def key(self) -> str:
        """Its name for drawn splits, without the number of shards, which grows as pictures are added."""
        return re.sub(r"-of-\d+", "", self.file.name)

    def rows(self) -> Iterator[Row]:
        """Read names and labels, some thousand rows at a time.

        Raises
        ------
        DataError
            If the file is damaged, a picture lies elsewhere, or a label has no name.
        """
        picture, label, group_of = self.columns.picture, self.columns.label, self.columns.group
        named = (picture.path, label and label.name, group_of and group_of.name)
        wanted = list(dict.fromkeys(name for name in named if name))
        start = 0
        try:
            with opened_parquet(self.file) as file:
                for group in range(file.metadata.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    self._without_bytes(file, group, picture, start)
                    unmasked = self._without_bytes(file, group, self.columns.mask, start) if self.columns.mask else ()
                    for number, values in self._values(file, group, wanted, range(start, stop)):
                        name = _plain(values.get(picture.path or "")) or f"row-{number + 1}"
                        of_label, of_group = (values.get(one.name) if one else None for one in (label, group_of))
                        yield self._row(number, name, of_label, of_group, number in unmasked)
                    start = stop
        except (pyarrow.ArrowException, OSError) as error:
            raise _damaged(self.where, error) from error

    def _values(
        self, file: pyarrow.parquet.ParquetFile, group: int, wanted: list[str], numbers: range
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each row's number with what it has in some columns."""
        if not wanted:
            yield from ((number, {}) for number in numbers)
            return
        start = numbers.start
        for batch in batches(file, wanted, [group], _BATCH_ROWS):
            columns = {name: _column(batch, name).to_pylist() for name in wanted}
            for place in range(batch.num_rows):
                yield start + place, {name: values[place] for name, values in columns.items()}
            start += batch.num_rows

    def _row(self, number: int, name: str, value: Any, of_group: Any, is_unmasked: bool) -> Row:
        mask, label = self.columns.mask, self.columns.label
        located = None if mask is None or is_unmasked else self._locator(mask, name, number)
        text, label_name = (None, None) if label is None else self._label(label, value, number)
        group = None if self.columns.group is None else self._name(self.columns.group, of_group, number)
        return Row(number, self._locator(self.columns.picture, name, number), located, text, label_name, group)

    def _locator(self, column: PictureColumn, name: str, number: int) -> str:
        return locator(str(self.file), f"{column.name}/{name}", self.leaves[column.content], number)

    def _label(self, column: LabelColumn, value: Any, number: int) -> tuple[str | None, str | None]:
        """A label as a text, and its name; none for an empty one and for -1, as the hub writes it."""
        name = self._name(column, value, number)
        if name is None or column.names is None:
            return name, None
        # Masks have numbers of their own: a class is known there by its name.
        return (name, None) if self.columns.mask else (str(value), name)

    def _name(self, column: LabelColumn, value: Any, number: int) -> str | None:
        """Name of a class or group, the value itself where the file names none; None for an empty one and for -1."""
        if value is None or (not column.is_text and value == -1) or value == "":
            return None
        if column.names is None:
            return str(value)
        if not 0 <= value < len(column.names):
            raise DataError(
                f"{self.where}: row {number + 1}: {column.name} is {value}, but the file names {len(column.names)} "
                f"classes, 0 to {len(column.names) - 1}"
            )
        return column.names[value]

    def _without_bytes(
        self, file: pyarrow.parquet.ParquetFile, group: int, column: PictureColumn, first: int
    ) -> range | set[int]:
        """Rows of a row group without bytes, as far as its statistics tell; refuses those that have a path instead."""
        metadata = file.metadata.row_group(group)
        statistics = metadata.column(self.leaves[column.content]).statistics
        if statistics is None or not statistics.has_null_count or not statistics.null_count:
            return range(0)
        found: set[int] = set()
        start = first
        for batch in batches(file, [name for name in (column.content, column.path) if name], [group], _BATCH_PICTURES):
            contents = _column(batch, column.content).is_null().to_pylist()
            paths = _column(batch, column.path).to_pylist() if column.path else [None] * batch.num_rows
            for number, (is_empty, path) in enumerate(zip(contents, paths, strict=True), start=start):
                if is_empty and path:
                    raise DataError(
                        f"{self.where}: row {number + 1}: the column {column.name} has a path ({path}) and no bytes: "
                        "the picture is not in the file. push_to_hub of datasets embeds pictures; before to_parquet do "
                        'so by with_format("arrow").map(datasets.table.embed_table_storage, batched=True)'
                    )
                if is_empty:
                    found.add(number)
            start += batch.num_rows
        return found

    def notice_size(self, noticed: Noticed) -> None:
        """Say where row groups are so large that pictures out of order are found slowly."""
        metadata = pyarrow.parquet.read_metadata(self.file)
        leaf = self.leaves[self.columns.picture.content]
        groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
        largest = max(groups, key=lambda group: group.column(leaf).total_uncompressed_size, default=None)
        if largest and (size := largest.column(leaf).total_uncompressed_size) > _LARGE_GROUP:
            noticed.count(
                "note",
                "{n} files have row groups of more than 256 MB, such as {example}; a picture out of order is found by "
                "reading its row group from the start, so that figures take longer (row_group_size=100 writes small "
                "ones)",
                f"{self.file} ({largest.num_rows:,} pictures, {size / 2**20:,.0f} MB)",
            )


def _column(batch: pyarrow.RecordBatch, name: str) -> Any:
    """A column, or a field of a struct, of which a batch may have read some fields only."""
    outer = max((field for field in batch.schema.names if name == field or name.startswith(f"{field}.")), key=len)
    values, rest = batch.column(outer), name[len(outer) + 1 :]
    while rest:
        names = [field.name for field in values.type]
        inner = max((field for field in names if rest == field or rest.startswith(f"{field}.")), key=len)
        values, rest = values.flatten()[names.index(inner)], rest[len(inner) + 1 :]
    return values


def _plain(path: str | None) -> str:
    """The last part of a path, of either system, in characters that can be printed."""
    last = re.split(r"[/\\]", path or "")[-1]
    return "".join(character if character.isprintable() else "?" for character in last)


def _check_ends(file: Path, where: str) -> None:
    """Refuse what is no Parquet file, or was not copied to its end."""
    if file.suffix != ".parquet":
        raise DataError(f"{where}: the name of a Parquet file has to end in .parquet")
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(START)
        opened.seek(max(0, size - len(_MAGIC)))
        end = opened.read()
    if start.startswith(b"PARE"):
        raise DataError(f"{where}: it is encrypted; write it anew without")
    if not start.startswith(_MAGIC):
        raise DataError(f"{where}: it is no Parquet file but {content_kind(start) or 'another one'}")
    if end != _MAGIC or size < _SMALLEST:
        raise DataError(f"{where}: it is cut off: what a Parquet file has at its end is not there; download it again")


def _damaged(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: it is damaged: {str(error).splitlines()[0]}; download it again")
