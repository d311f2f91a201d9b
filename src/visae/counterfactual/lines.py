"""What the headline says of counterfactual pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from visae.files import read_json


def headline_lines(summary: Path) -> list[str]:
    """Lines of a study's pairs from their summary.json; none where it has not been made."""
    if not summary.is_file():
        return []
    found = read_json(summary)
    scenes = ", ".join(f"{n} {split}" for split, n in found["n_scenes"].items())
    lines = ["", f"  Counterfactual pairs ({scenes}): active latents that are selective for one cause [95 %]:"]
    for one in found["dictionaries"]:
        share = f"{one['share']:6.1%} [{one['share_low']:.1%}, {one['share_high']:.1%}]"
        lines.append(f"    {one['name']:22} {share}, {one['n_again']} of {one['n_active']}")
    edited = [one for one in found["dictionaries"] if one["kind"] == "study" and one["edits"]]
    if edited:
        lines.append(
            "  Suppressed latents of a cause: change of its log odds in SD, of others', and of random latents':"
        )
    for one in edited:
        lines += [f"    {one['name']} {line}" for line in _edits(one["edits"])]
    return lines


def _edits(edits: list[dict[str, Any]]) -> Iterator[str]:
    for row in edits:
        effect = f"{row['effect']:+.2f} [{row['effect_low']:+.2f}, {row['effect_high']:+.2f}]"
        called = "" if row["q"] is not None and row["q"] <= 0.05 else ", not significant"
        yield (
            f"{row['cause']:11} {row['n_latents']:2} latents: own {effect}, others {row['others_effect']:+.2f}, "
            f"random {row['control']:+.2f}{called}"
        )
