"""The table in words; for figures too, which wait for no heavy module."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl


def as_text(table: pl.DataFrame) -> str:
    """Return the table as Markdown, with a line for each metric that has no value."""
    lines = ["| metric | value | corrected |", "| --- | --- | --- |"]
    for row in table.iter_rows(named=True):
        lines.append(f"| `{row['metric']}` | {cell(row, 'value')} | {cell(row, 'corrected')} |")
    missing = [
        f"{row['metric']}: not measured: {row['note']}" for row in table.rows(named=True) if row["value"] is None
    ]
    return "\n".join([*lines, *missing])


def cell(row: Mapping, kind: str) -> str:
    """Return a value of a row with its interval, to three digits; empty where there is none."""
    value, low, high = (row[f"{kind}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return ""
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
