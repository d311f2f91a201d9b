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
    title = f"  Audit of what is said of latents of {sae}, on val of {folder.name}: survive [95 %]; and mean it best:"
    return ["", title, *(f"    {row['source']:22} {_of_source(row)}" for row in found["sources"])]


def _of_source(row: dict[str, Any]) -> str:
    if not row["n_tested"]:
        return f"none of {row['n_proposed']} proposals can be tested"
    said = f"{row['n_survived']} of {row['n_tested']}, {_share(row, 'survived')}; {_share(row, 'specific')}"
    beside = row["untrained"]
    if beside and beside["survived"]["mean"] is not None:
        both = " and ".join(f"{beside[share]['mean']:.1%}" for share in ("survived", "specific"))
        said += f"; untrained {both} (p {beside['survived']['p']:.3f}, {beside['specific']['p']:.3f})"
    if row["n_edited"]:
        said += f"; {row['n_replicated']} of {row['n_edited']} edits show their effect twice"
    return said


def _share(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.1%} [{row[key + '_low']:.1%}, {row[key + '_high']:.1%}]"
