"""Which member of a sweep is taken, by the rule of its section, and its files under the sweep's own name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from visae.config.settings import SelectSettings
from visae.config.sweeps import LIMITED
from visae.errors import TrainingError
from visae.files import atomic_path, read_json, write_json
from visae.provenance import Provenance


def choose_member(settings: SelectSettings, summaries: list[Path], output: Path) -> dict[str, Any]:
    """Copy the files of the member that the rule takes, and write selection.json, which says which and why.

    Parameters
    ----------
    settings
        The rule.
    summaries
        Every member's summary.json; its folder's name is the member's.
    output
        The sweep's folder; selection.json is written last.

    Returns
    -------
    dict
        What selection.json holds: `chosen`, `why`, the rule, and every member's metrics and own settings.

    Raises
    ------
    TrainingError
        If no member is within the limits; names the nearest.
    """
    provenance = Provenance(settings, summaries, 0, "none")
    members = [_described(path) for path in summaries]
    for member in members:
        member["within_limits"] = _excess(member, settings) <= 1
    chosen = _best(settings, members, output.name)
    swept = [key for key in chosen["settings"] if any(m["settings"][key] != chosen["settings"][key] for m in members)]
    for member in members:
        member["settings"] = {key: member["settings"][key] for key in swept}
    limits = " and ".join(f"{key} at most {value:g}" for key, value in settings.at_most.items())
    folder = summaries[0].parent.parent / chosen["name"]
    for file in ("sae.safetensors", "metrics.parquet", "summary.json", "config.json"):
        with atomic_path(output / file) as temporary:
            shutil.copyfile(folder / file, temporary)
    n_within = sum(member["within_limits"] for member in members)
    selection = {
        "sweep": output.name,
        "chosen": chosen["name"],
        "why": f"best {settings.by} ({chosen[settings.by]:.4g}) of the {n_within} of {len(members)} members"
        + (f" with {limits}" if limits else ""),
        "by": settings.by,
        "at_most": settings.at_most,
        "members": members,
        "provenance": provenance.record(),
    }
    write_json(output / "selection.json", selection)
    return selection


def _described(summary: Path) -> dict[str, Any]:
    found = read_json(summary)
    settings = read_json(summary.with_name("config.json"))["settings"]
    return {"name": summary.parent.name, **{key: found[key] for key in LIMITED}, "settings": settings}


def _excess(member: dict[str, Any], settings: SelectSettings) -> float:
    """Largest ratio of a metric to its limit; 1 or less is within all limits."""
    ratios = [0.0]
    for key, limit in settings.at_most.items():
        over = member[key] - limit
        ratios.append(1.0 if over <= 0 else 1 + over / max(abs(limit), 1e-9))
    return max(ratios)


def _best(settings: SelectSettings, members: list[dict[str, Any]], sweep: str) -> dict[str, Any]:
    sign = -1 if settings.by == "explained_variance" else 1
    allowed = [member for member in members if member["within_limits"]]
    if not allowed:
        nearest = min(members, key=lambda member: (_excess(member, settings), member["name"]))
        broken = {key: limit for key, limit in settings.at_most.items() if nearest[key] > limit}
        found = ", ".join(f"{key} {nearest[key]:.4g} (at most {limit:g})" for key, limit in broken.items())
        raise TrainingError(
            f"sweeps: {sweep}: select: at_most: none of {len(members)} members is within the limits; nearest is "
            f"{nearest['name']} with {found}; raise that limit, or give the sweep other members"
        )
    # Of equal ones the sparser, then the first by name: the choice never depends on the order of the members.
    return min(allowed, key=lambda member: (sign * member[settings.by], member["l0"], member["name"]))
