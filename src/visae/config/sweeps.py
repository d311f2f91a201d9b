"""The sections of sweeps: many sparse autoencoders from one section, and the rule by which one of them is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from visae.config.fields import setting

# Named here because the keys of a sweep are called `list` and `grid`, which would hide the built-in in the class.
_Grid = dict[str, list[Any]]
_Points = list[dict[str, Any]]

LIMITED = ("normalized_mse", "explained_variance", "l0", "l1", "dead_share", "dense_share")
"""What of a summary.json a rule may limit."""


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """Which member of a sweep is described and edited: of those within all limits, the best one."""

    by: Literal["normalized_mse", "explained_variance", "l0", "l1", "dead_share", "dense_share"] = setting(
        "Decides among the members within the limits: the largest explained_variance wins, of all others the smallest.",
        "normalized_mse",
    )
    at_most: dict[str, float] = setting(
        "Limits: a metric of summary.json (those that `by` may name) to the largest value that a member may have.", {}
    )


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """SAEs that differ from a section of `saes` in a few keys, trained together on one reading of the data.

    Exactly one of `grid` and `list` is given. The member that `select` takes is published under the sweep's own name.
    """

    base: str = setting("Name from `saes`: what the members have in common.")
    grid: _Grid = setting("Key of that section to the values it takes; every combination is a member.", {})
    list: _Points = setting("Members one by one, each with the keys in which it differs.", [])
    select: SelectSettings = setting("Which member later stages use.", SelectSettings())
    score: bool = setting(
        "Score the latents of every member on the first data set with masks that a study describes, for its figure "
        "`pareto`; each member is encoded for it.",
        False,
    )
