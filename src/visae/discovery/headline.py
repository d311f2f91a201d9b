"""What the headline says of sets of latents; nothing here waits for torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.files import read_json

_WORDS = {
    "set": "the set",
    "direction": "the direction",
    "random_latent": "random latents",
    "untrained": "untrained sets",
}


def sets_lines(path: Path) -> list[str]:
    """Lines of sets.json: means over classes beside all controls, then each class's set; nothing where it is not."""
    if not path.is_file():
        return []
    found = read_json(path)
    lines = ["  Sets of verified latents, all edits as long as the set's on each token:"]
    lines += [_mean(edit, scale, found) for edit, scale in _edits(found["mean"])]
    for row in found["classes"]:
        beaten = [f"{_WORDS.get(arm, arm)} q {q:.3f}" for arm, q in row["q"].items() if arm != "direction"]
        if "q_untrained" in row:
            beaten.append(f"among {row['untrained']} untrained dictionaries q {row['q_untrained']:.3f}")
        lines.append(
            f"    {row['class_name']:12} {row['edit']} at {row['scale']:+.1f} x max, {len(row['latents'])} latents: "
            f"{_share(row)} of the direction's effect; {'; '.join(beaten)}"
        )
    return lines


def _edits(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return list(dict.fromkeys((row["edit"], row["scale"]) for row in rows))


def _mean(edit: str, scale: float, found: dict[str, Any]) -> str:
    """One line: what each arm does in the mean over classes, and how many classes reach half."""
    moves, spills = found["moves"], found["spills"]
    arms = {row["arm"]: row for row in found["mean"] if (row["edit"], row["scale"]) == (edit, scale)}
    own = [row for row in found["classes"] if (row["edit"], row["scale"]) == (edit, scale)]
    parts = [f"{_WORDS.get(arm, arm)} {row[moves]:+.2f}" for arm, row in arms.items() if row[moves] is not None]
    said = f"    {edit} at {scale:+.1f} x max: {moves.replace('_', ' ')} {', '.join(parts)}; "
    said += f"{_share(arms['set'])} of the direction's, half or more in {sum(row['half'] for row in own)} of {len(own)}"
    beside = [f"{_WORDS.get(arm, arm)} {arms[arm][spills]:.2f}" for arm in ("set", "direction") if arms[arm][spills]]
    return said + (f"; {spills.replace('_', ' ')} {', '.join(beside)}" if beside else "")


def _share(row: dict[str, Any]) -> str:
    if row["share"] is None:
        return "no share"
    low, high = row["share_low"], row["share_high"]
    return f"{row['share']:.0%}" + ("" if low is None or high is None else f" [{low:.0%}, {high:.0%}]")
