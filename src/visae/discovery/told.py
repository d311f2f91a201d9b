"""What the headline says of findings."""

from __future__ import annotations

from pathlib import Path

from visae.files import read_json

_NAMED = 3


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
