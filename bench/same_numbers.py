"""Compare two trees of results, table by table: `python -m bench.same_numbers BEFORE AFTER`.

Every number of BEFORE has to be in AFTER to the last digit, in the row of the same keys; rows and columns that are new
are left aside. Exits 1 where a number differs or is missing. Tables and columns that were renamed are known here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

TABLES = {"classification/edits": "classification/arms", "classification/moved": "classification/becomes"}
# Examples are single pictures, kept in another form since; their numbers are those of the figures, not of a table.
LEFT_OUT = ("segmentation/maps", "classification/examples", ".runs")
COLUMNS = {
    "classification/arms": {f"selectivity{end}": f"probability_selectivity{end}" for end in ("", "_low", "_high")},
    "segmentation/untrained": {"selectivity": "effect"},
}
# What a table of before is about where it does not say so itself.
ABOUT = {"segmentation/arms": {"edit": "suppress"}, "segmentation/becomes": {"edit": "suppress"}}
# In the mean over classes, `n_other` of classification counted pictures once; it now counts them for each class. Times
# are no results.
NOT_COMPARED = {"classification/arms": ("n_other",)}
TIMES = ("tokens_per_second", "data_wait_share")


def differences(before: Path, after: Path) -> Iterator[str]:
    """Lines on what differs."""
    for path in sorted(before.rglob("*.parquet")):
        name = path.relative_to(before).as_posix().removesuffix(".parquet")
        if any(part in name for part in LEFT_OUT):
            continue
        short = "/".join(name.split("/")[-2:])
        other = after / f"{name.removesuffix(short)}{TABLES.get(short, short)}.parquet"
        if not other.is_file():
            yield f"{name}: missing"
            continue
        yield from _of_tables(name, TABLES.get(short, short), pl.read_parquet(path), pl.read_parquet(other))


def _of_tables(name: str, short: str, old: pl.DataFrame, new: pl.DataFrame) -> Iterator[str]:
    renamed = COLUMNS.get(short, {})
    # Both may be of today's form.
    old = old.rename({a: b for a, b in renamed.items() if a in old.columns and b not in old.columns})
    known = {key: value for key, value in ABOUT.get(short, {}).items() if key not in old.columns}
    old = old.with_columns(**{key: pl.lit(value) for key, value in known.items()})
    left_out = (*NOT_COMPARED.get(short, ()), *TIMES)
    values = [
        column
        for column, kind in old.schema.items()
        if (kind.is_float() or kind == pl.List(pl.Float64) or kind == pl.List(pl.Float32) or column.startswith("n_"))
        and column not in ("scale", "dose")
    ]
    keys = [column for column in old.columns if column not in values]
    if missing := [column for column in old.columns if column not in new.columns]:
        yield f"{name}: columns missing: {', '.join(missing)}"
        return
    if keys and old.select(keys).is_unique().all():
        found = old.join(new, on=keys, how="left", suffix=":new", nulls_equal=True, maintain_order="left")
    elif old.height == new.height:
        found = pl.concat([old, new.select(pl.all().name.suffix(":new"))], how="horizontal")
    else:
        yield f"{name}: {old.height} rows, now {new.height}"
        return
    for column in values:
        if column in left_out:
            continue
        same = found.select(pl.col(column).eq_missing(pl.col(f"{column}:new"))).to_series()
        if not same.all():
            row = found.filter(~same).head(1).select(*keys, column, f"{column}:new").to_dicts()[0]
            yield f"{name}: {column}: {(~same).sum()} of {old.height} differ, first {row}"


def main() -> None:
    """Print what differs, or how many tables are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="folder of results of the version before")
    parser.add_argument("after", type=Path, help="folder of results of the version after")
    parsed = parser.parse_args()
    found = list(differences(parsed.before, parsed.after))
    print("\n".join(found) or f"{len(list(parsed.before.rglob('*.parquet')))} tables: every number is the same")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
