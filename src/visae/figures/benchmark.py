"""The benchmark of a study's SAEs as one page: metrics of visaebench and saev, an SAE beside the other."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import polars as pl

from visae.features.benchmark.text import cell
from visae.figures.page import as_page
from visae.files import atomic_path, write_text

_PACKAGES = {"visaebench": "Metrics of visaebench", "saev": "Metrics of saev"}


def data(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row a metric and SAE: the SAE's name, then the columns of benchmark.parquet."""
    return pl.concat([table.select(pl.lit(name).alias("sae"), pl.all()) for name, table in tables.items()])


def as_html(table: pl.DataFrame) -> str:
    """Return `data` as a page: a row a metric, two columns an SAE; below a value what it is of, or why not."""
    parts = [_section(title, table.filter(package=package)) for package, title in _PACKAGES.items()]
    return as_page("Metrics of visaebench and saev", "".join(parts))


def write_benchmark_page(tables: Mapping[str, Path], html_path: Path, csv_path: Path) -> None:
    """Write the page for the report, and its numbers as CSV.

    Parameters
    ----------
    tables
        Path of benchmark.parquet by the name of the SAE.
    html_path, csv_path
        Where to.
    """
    table = data({name: pl.read_parquet(path) for name, path in tables.items()})
    with atomic_path(csv_path) as temporary:
        table.write_csv(temporary)
    write_text(html_path, as_html(table))


def _section(title: str, rows: pl.DataFrame) -> str:
    saes = rows["sae"].unique(maintain_order=True).to_list()
    corrects = (rows["value"] != rows["corrected"]).any()
    kinds = ("value", "corrected") if corrects else ("value",)
    names = "".join(f"<th scope='col' colspan='{len(kinds)}'>{escape(name)}</th>" for name in saes)
    second = "<tr><th></th>" + "<th>as defined</th><th>corrected</th>" * len(saes) + "</tr>" if corrects else ""
    lines = []
    for metric in rows["metric"].unique(maintain_order=True):
        found = {row["sae"]: row for row in rows.filter(metric=metric).iter_rows(named=True)}
        arrow = "higher is better" if next(iter(found.values()))["higher_is_better"] else "lower is better"
        cells = "".join(_cells(found[name], kinds) for name in saes)
        lines.append(f"<tr><th scope='row'>{escape(metric)}<br><small>{arrow}</small></th>{cells}</tr>")
    head = f"<thead><tr><th></th>{names}</tr>{second}</thead>"
    return f"<h2>{title}</h2><table>{head}<tbody>{''.join(lines)}</tbody></table>\n"


def _cells(row: Mapping, kinds: tuple[str, ...]) -> str:
    """One SAE's cells of one metric."""
    if row["value"] is None:
        return f"<td class='note' colspan='{len(kinds)}'>not measured: {escape(row['note'])}</td>"
    values = [cell(row, kind) for kind in kinds]
    notes = [f"{row['n']:,} {row['unit']} {row['note']}", row["correction"]]
    below = [f"<br><small class='note'>{escape(note)}</small>" if note else "" for note in notes]
    return "".join(f"<td>{value}{note}</td>" for value, note in zip(values, below, strict=False))
