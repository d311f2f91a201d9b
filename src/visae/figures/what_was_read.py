"""What was read: of each data set what its index found, of each model what it assumes, and what is odd of either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from visae.data.facts import dataset_facts
from visae.figures.page import as_page
from visae.files import atomic_path, read_json, write_text
from visae.notices import Notice, from_plain
from visae.vision.card import ModelCard
from visae.vision.facts import model_facts

_SCHEMA = {"part": pl.String, "name": pl.String, "what": pl.String, "value": pl.String}
_PARTS = {"data set": "Data sets", "model": "Models"}
_LEVELS = ("warning", "note")


def data(summaries: Mapping[str, Mapping[str, Any]], cards: Mapping[str, ModelCard]) -> pl.DataFrame:
    """Return one row a fact or notice: part (data set, model), name, what, value.

    Parameters
    ----------
    summaries
        summary.json by data set.
    cards
        Cards by model.
    """
    rows = []
    for name, summary in summaries.items():
        rows += _rows("data set", name, dataset_facts(summary), from_plain(summary.get("notices", [])))
    for name, card in cards.items():
        rows += _rows("model", name, model_facts(card), card.notices)
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def as_html(table: pl.DataFrame) -> str:
    """Return the table as a page: a column a data set or model, a row a fact; what is odd comes first.

    Names and paths of files are text, whatever they hold.
    """
    parts = [_section(title, table.filter(part=part)) for part, title in _PARTS.items()]
    return as_page("What was read", "".join(parts))


def write_what_was_read(
    summary_paths: Mapping[str, Path], card_paths: Mapping[str, Path], html_path: Path, csv_path: Path
) -> None:
    """Write the table as a page for the report, and as CSV.

    Parameters
    ----------
    summary_paths
        summary.json by data set.
    card_paths
        model.json by model.
    html_path, csv_path
        Where to.
    """
    summaries = {name: read_json(path) for name, path in summary_paths.items()}
    table = data(summaries, {name: ModelCard.read(path) for name, path in card_paths.items()})
    with atomic_path(csv_path) as temporary:
        table.write_csv(temporary)
    write_text(html_path, as_html(table))


def _rows(part: str, name: str, facts: Mapping[str, str], notices: Iterable[Notice]) -> list[tuple[str, ...]]:
    by_level = sorted(notices, key=lambda notice: _LEVELS.index(notice.level))
    told = [(part, name, notice.level, notice.text) for notice in by_level]
    return told + [(part, name, what, value) for what, value in facts.items()]


def _section(title: str, rows: pl.DataFrame) -> str:
    """One table; empty where there is nothing of this part."""
    if rows.is_empty():
        return ""
    names = rows["name"].unique(maintain_order=True).to_list()
    # In the order of the first that has it; what is odd before all.
    facts = sorted(rows["what"].unique(maintain_order=True), key=lambda what: (what not in _LEVELS, _LEVELS[0] != what))
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names)
    lines = [
        f"<tr class='{escape(what.split()[0])}'><th scope='row'>{escape(what)}</th>"
        + "".join(f"<td>{_cell(rows.filter(name=name, what=what)['value'])}</td>" for name in names)
        + "</tr>"
        for what in facts
    ]
    return f"<h2>{title}</h2><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>\n"


def _cell(values: Iterable[str]) -> str:
    return "<br>".join(escape(value) for value in values)
