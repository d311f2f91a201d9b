"""What an audit found, in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.files import read_json


def audit_lines(folder: Path, sae: str) -> list[str]:
    """Yield of each source of an SAE on a data set, beside untrained dictionaries; nothing where there is no audit."""
    if not (folder / "audit.json").is_file():
        return []
    found = read_json(folder / "audit.json")
    title = f"  Audit of what is said of latents of {sae}, on val of {folder.name}: share of proposals [95 %]"
    return ["", title, *(f"    {row['source']:22} {_of_source(row)}" for row in found["sources"])]


def _of_source(row: dict[str, Any]) -> str:
    if not row["n_tested"]:
        return f"none of {row['n_proposed']} can be tested"
    said = f"of {row['n_tested']} above chance {_share(row, 'survived')}"
    beside = row["untrained"]
    if row["n_compared"] and beside:
        said += f" (untrained {beside['survived']['mean']:.1%}), above untrained {_share(row, 'above')}"
    if row["n_edited"]:
        said += f"; {row['n_replicated']} of {row['n_edited']} edits show their effect twice"
    return said


def _share(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.1%} [{row[key + '_low']:.1%}, {row[key + '_high']:.1%}]"
