"""The settings of what latents do together."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class InteractionSettings:
    """Which latents are switched off together, and which groups of latents stand in for each other."""

    latents: int = setting(
        "Latents whose pairs are edited: those with the largest verified effects, each in the class to which it does "
        "most. The edits of a task are at most the square of that many. With 0 nothing is edited together.",
        30,
        minimum=0,
    )
    candidates: int = setting(
        "Latents of each class, none of them verified by itself, among which redundant groups are looked for; with 0 "
        "none are.",
        24,
        minimum=0,
    )
    largest: int = setting("Latents in a group, at most.", 8, minimum=2)
    groups: int = setting(
        "Groups of each class, at most, that are measured on pictures that had no part in their choice.", 2, minimum=1
    )
    random_draws: int = setting(
        "Random groups, each of as many latents, that a group has to beat, their change as long.", 4, minimum=1
    )
    bootstrap: int = setting("Resamples behind each interval, and sign flips behind each test.", 10_000, minimum=100)
    batch_size: int = setting("Pictures edited at once.", 32, minimum=1)
    seed: int = setting("Seed of what is drawn.", 0, minimum=0)
