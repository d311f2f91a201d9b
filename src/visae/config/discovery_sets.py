"""The settings of sets of latents that move a class together."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class SetSettings:
    """Sets of verified latents of a class: how they are chosen, and what they are measured beside."""

    sizes: list[int] = setting(
        "Latents of a set, at most: sets of these sizes are measured, and the largest is the class's set. Without any, "
        "no sets are made.",
        [1, 2, 5, 10],
    )
    candidates: int = setting(
        "Latents of each class that a set would be made of by the estimate alone, that are verified for it where the "
        "atlas has not edited them.",
        24,
        minimum=0,
    )
    proposed: int = setting(
        "Latents of a dictionary, the first by the estimate, among which sets are chosen: of untrained and other "
        "dictionaries as they are, of the SAE itself those that are verified.",
        64,
        minimum=1,
    )
    scales: list[float] = setting(
        "Multiples of their largest values that the latents are set to where the class is; 0 switches off. Sets are "
        "chosen for the first.",
        [-1.0, 0.0],
        not_empty=True,
    )
    insert_scales: list[float] = setting(
        "Multiples of their largest values at which they are inserted where the class is not.",
        [1.0, 2.0],
        not_empty=True,
    )
    images: int = setting(
        "Pictures of each class, of split val, on which sets are measured, at most, and as many of others: none on "
        "which a pair was verified.",
        32,
        minimum=2,
    )
    untrained: int = setting(
        "Untrained dictionaries whose sets, chosen in the same way, the SAE's set is ranked among; the smallest "
        "p-value is 1 / (1 + untrained). 0 leaves the test out.",
        39,
        minimum=0,
    )
    sample: int = setting("Pictures of those on which untrained dictionaries are ranked, at most.", 16, minimum=1)
