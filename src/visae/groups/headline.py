"""What a finished experiment on groups is looked at for first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.files import read_json

_NAMED = 8  # latents that are named
_WAYS = {
    "before": "as it is",
    "suppressed": "latents suppressed",
    "random_latent": "random latents suppressed",
    "frequency_matched": "latents as often active suppressed",
    "suppressed_retrained": "suppressed, probe retrained",
    "control_retrained": "as often active, probe retrained",
    "retrained_train": "probe retrained on balanced train",
    "retrained_val": "probe retrained on balanced val",
}


def groups_lines(path: Path) -> list[str]:
    """Worst-group accuracy in every way, and the suppressed latents; nothing where there is no groups.json."""
    if not path.is_file():
        return []
    found = read_json(path)
    named = ", ".join(map(str, found["latents"][:_NAMED])) + (", …" if len(found["latents"]) > _NAMED else "")
    lines = [
        f"  Groups: {found['n_ranked']} latents help on train and harm in weak groups; {found['n_suppressed']} are "
        f"suppressed ({named or 'none'}); {len(found['verified'])} of {found['n_edited']} verified one by one",
        "    Accuracy of the worst group on held-out pictures [95 %]:",
    ]
    for row in found["worst_group"]:
        size = ", as long" if row["size"] == "matched" else ""
        lines.append(f"      {_WAYS[row['way']] + size:42} {_share(row)} ({row['group']})")
    if (follow := found.get("follow_background")) and follow["share"] is not None:
        lines.append(
            f"    Of the first {follow['n']} latents {follow['share']:.0%} follow the background, of all "
            f"{follow['of_all']:.0%}"
        )
    if found["left_out"]:
        lines.append(f"    Not measured: {', '.join(row['group'] for row in found['left_out'])}")
    return lines


def _share(row: dict[str, Any]) -> str:
    return f"{row['accuracy']:6.1%} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]"
