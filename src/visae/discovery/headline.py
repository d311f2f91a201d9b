"""What the headline says of an atlas and of what is made of it; nothing here waits for torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.files import read_json

_NAMED = 3  # latents of a class, or pairs, that are named
_WORDS = {
    "set": "the set",
    "direction": "the direction",
    "random_latent": "random latents",
    "untrained": "untrained sets",
}


def atlas_lines(path: Path) -> list[str]:
    """How often each ranking of pairs is right, and the strongest proven latents of each class."""
    if not path.is_file():
        return []
    found = read_json(path)
    lines = [
        f"  Atlas: of {found['n_pairs']} pairs of a latent and a class {found['n_measured']} were edited, "
        f"{found['n_verified']} verified, {found['n_replicated']} shown again"
    ]
    for row in found["precision"]:
        share = f"{row['precision']:.0%} verified [{row['low']:.0%}, {row['high']:.0%}]"
        lines.append(f"    first {row['n']} by {row['ranking']}: {share}")
    for one in found["classes"]:
        parts = [
            f"{what} " + ", ".join(f"{row['latent']} ({row['effect']:+.2f})" for row in one[kind][:_NAMED])
            for kind, what in (("supports", "supported by"), ("opposes", "opposed by"))
            if one[kind]
        ]
        if parts:
            lines.append(f"    {one['name']:12} {'; '.join(parts)}")
    return lines


def interaction_lines(path: Path) -> list[str]:
    """How many pairs of latents interact, the strongest of them, and how many groups are redundant.

    Parameters
    ----------
    path
        interactions.json; where there is none, nothing is said.
    """
    if not path.is_file():
        return []
    found = read_json(path)
    lines = [
        f"  Together: of {found['n_tested']} tested pairs of {found['n_latents']} latents {found['n_not_zero']} do "
        f"other than the sum of both ({found['n_not_zero_at_random']} of as many random pairs as long), "
        f"{found['n_significant']} by more than these: {found['n_more']} more than the sum, {found['n_less']} less"
    ]
    for row in found["strongest"][:_NAMED]:
        interval = f"[{row['synergy_low']:+.2f}, {row['synergy_high']:+.2f}]"
        lines.append(
            f"    {row['class_name']:12} {row['latent']} and {row['other']}: {row['together']:+.2f} together, "
            f"{row['effect']:+.2f} and {row['effect_other']:+.2f} alone, synergy {row['synergy']:+.2f} {interval}"
        )
    verified = sum(group["verified"] for group in found["groups"])
    return [
        *lines,
        f"    groups of latents of which none is verified: {found['n_groups']} measured, {verified} verified together, "
        f"{found['n_redundant']} redundant",
    ]


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
