"""The settings of the audit of meanings."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How meanings of latents are proposed, and how each is tested on other pictures."""

    proposals: int = setting(
        "Latents for which each source proposes a meaning, at most, those that it is surest of on split train: the "
        "same budget for every dictionary. A user's own proposals are all tested.",
        100,
        minimum=1,
    )
    exemplars: int = setting(
        "Strongest pictures of split train whose most frequent class is the meaning that exemplars propose.",
        10,
        minimum=1,
    )
    pictures: int = setting(
        "Pictures of split train on which meanings are proposed, and of split val on which they are tested, at most; "
        "of larger patches fewer, so that there are 200,000 patches of each.",
        1000,
        minimum=2,
    )
    permutations: int = setting(
        "Permutations of the labels over pictures behind each null; the smallest p-value is 1 / (1 + permutations).",
        1000,
        minimum=19,
    )
    bootstrap: int = setting("Resamples of pictures behind each interval.", 1000, minimum=10)
    untrained: int = setting(
        "Dictionaries with random directions, as wide as the SAE and with as many codes a patch, that propose by the "
        "same rules, and whose proposals those of the SAE have to beat.",
        19,
        minimum=0,
    )
    seed: int = setting("Seed of what is drawn.", 0, minimum=0)
