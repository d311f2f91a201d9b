"""The lines on what an SAE adds that a finished workflow is looked at for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.files import read_json

_KINDS = {"untrained": "untrained dictionaries", "frozen": "with a frozen random decoder"}
_MEASURES = {
    "length_for_half": "half of the targets turned by a shorter edit",
    "selectivity": "selectivity at one length",
    "natural_selectivity": "selectivity at natural doses",
}


def gain_lines(path: Path) -> list[str]:
    """In how many classes the SAE comes before dictionaries that learned less; nothing where that was not asked."""
    if not path.is_file():
        return []
    found: dict[str, Any] = read_json(path)
    lines = ["  What the SAE adds, classes in which it comes first (FDR 5 %):"]
    for rule in found["rules"]:
        for measure, words in _MEASURES.items():
            parts = [
                f"{row['n_significant']} of {row['n_classes']} against {row['n_dictionaries']} {_KINDS[row['kind']]}"
                for row in found["over_classes"]
                if row["rule"] == rule and row["measure"] == measure
            ]
            lines.append(f"    by {rule}, {words}: {', '.join(parts)}")
    shares = [
        f"{row['kind']} {row['verified']} of {row['proposed']}" for row in found["discoveries"] if row["proposed"]
    ]
    return lines + ([f"    verified of the first pairs by estimate: {', '.join(shares)}"] if shares else [])
