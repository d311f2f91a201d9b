"""List the pictures of a table: a CSV or Parquet file with a row a picture, read in batches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from visae.config.settings import Settings, TableSettings
from visae.data.classes import composed
from visae.data.labels import Labels
from visae.data.noticed import Noticed
from visae.data.pictures import Listing, Picture, check_shares, existing, in_drawn_splits, in_order
from visae.data.split_names import check_split_name
from visae.data.table_files import Row, Table
from visae.errors import DataError

_WHOLE = ("label", "mask", "pair", "cause", "region", "group")
"""Columns that are refused where they are empty in all rows."""


def list_table(settings: TableSettings, seed: int) -> Listing:
    """List the pictures of a table in its order, split by split.

    Raises
    ------
    DataError
        If the table, its columns or its cells are not as they have to be.
    """
    table = Table.open(existing(settings.file, "file", folder=False))
    root = existing(settings.root, "root") if settings.root is not None else table.file.parent
    where = f"file: {table.file}"
    cure = "leave the column label out"
    labels = Labels(where, cure, settings.classes, always_text=table.text_labels, zero_based=settings.zero_based)
    noticed, unread = Noticed(), Noticed()
    if table.spaced:
        noticed.count("note", "names of columns stand between spaces; spaces around cells are left out", "")
    splits, filled = set(), set()
    for row in table.rows(noticed):
        if row.path is None:
            raise DataError(f"{where}: {row.place}: it has no path")
        if "split" in table.columns and row.split not in splits:
            splits.add(_checked_split(row, where))
        for column, path in (("path", row.path), ("mask", row.mask), ("region", row.region)):
            _check_path(path, root, f"{where}: {row.place}: {column}")
        _check_pair(row, where)
        labels.add(row.place, row.split or "", row.label, row.label_name, row.mask)
        filled |= {name for name in _WHOLE if getattr(row, name) is not None}
    for name in _WHOLE:
        if name in table.columns and name not in filled:
            raise DataError(f"{where}: the column {name} is empty in all rows; fill it, or leave it out")
    classes = labels.classes(noticed)

    def absolute(path: str) -> str:
        return os.path.abspath(root / path)

    def picture(row: Row) -> Picture:
        number, name = labels.of(row.label)
        mask, region = (None if path is None else absolute(path) for path in (row.mask, row.region))
        path, split = absolute(str(row.path)), row.split or ""
        group = None if row.group is None else composed(row.group)
        return Picture(path, split, number, name, mask, pair=row.pair, cause=row.cause, region=region, group=group)

    def of_splits() -> Iterator[Picture]:
        for split in in_order(splits):
            yield from (picture(row) for row in table.rows(unread) if row.split == split)

    def with_keys() -> Iterator[tuple[str, Picture]]:
        for row in table.rows(unread):
            # Pictures of a pair are drawn together.
            yield row.pair or str(row.path), picture(row)

    if splits:
        return Listing(of_splits(), classes, noticed)
    check_shares(settings)
    return Listing(in_drawn_splits(with_keys, settings, seed, where), classes, noticed)


def _checked_split(row: Row, where: str) -> str:
    if row.split is None:
        raise DataError(f"{where}: {row.place}: it has no split; name one in every row, or leave the column out")
    if not re.fullmatch(Settings.wildcard_pattern.removesuffix("$"), row.split):
        raise DataError(f"{where}: {row.place}: the split {row.split!r}: a name may hold letters, digits, - and _ only")
    check_split_name(row.split, f"{where}: {row.place}")
    return row.split


def _check_pair(row: Row, where: str) -> None:
    """Refuse what belongs to a pair where there is none."""
    if row.cause is not None and row.pair is None:
        raise DataError(f"{where}: {row.place} has a cause and no pair; name in pair what it shares with its base")
    if row.cause == "image_id":
        raise DataError(f"{where}: {row.place}: the cause image_id is called as a column of tables is; rename it")
    if row.region is not None and row.cause is None:
        raise DataError(f"{where}: {row.place} has a region and no cause; a region says where a cause is changed")


def _check_path(path: str | None, root: Path, place: str) -> None:
    """Refuse what names no file on this machine, whatever files there are."""
    if path is None:
        return
    if "\\" in path and not os.path.lexists(root / path):
        raise DataError(f"{place}: {path}: it has backslashes, as Windows writes paths; write / instead")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise DataError(f"{place}: {path}: it is an address; write the path of a file on this machine")
