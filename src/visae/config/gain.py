"""The settings of the test of what an SAE adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visae.config.fields import setting

Rule = Literal["labels", "estimate"]

GEOMETRIC = [0.0625 * 2 ** (step / 2) for step in range(13)]
"""From a sixteenth to four times the mean norm of tokens, each longer by a half in the square."""


@dataclass(frozen=True, kw_only=True)
class GainSettings:
    """What an SAE is compared with, how latents are chosen, and how far patches are moved."""

    untrained: int = setting(
        "Untrained dictionaries; the smallest p-value is 1 / (1 + untrained). 199 are enough that it survives the "
        "correction for ten classes.",
        199,
        minimum=1,
    )
    frozen: int = setting(
        "Dictionaries whose decoder is random and whose encoder is trained as the SAE's was: on the same tokens, for "
        "as many steps, at the same width and number of codes. Each takes about as long to train as the SAE.",
        39,
        minimum=0,
    )
    fitted: bool = setting("Whether PCA and k-means are fitted to compare with; raw neurons always are.", True)
    rules: list[Rule] = setting(
        "How each dictionary chooses its latent for a class on split train: by `labels` (F1 of patches, AUC of "
        "pictures), or by the `estimate` of the atlas. The first is the one that verdicts are given by.",
        ["labels", "estimate"],
        not_empty=True,
    )
    patches: int = setting(
        "Patches of each class, of split train, on which latents are chosen, at most, drawn once for all dictionaries; "
        "of tasks on pictures whole pictures with as many.",
        2000,
        minimum=10,
    )
    images: int = setting(
        "Pictures of each class, of split val, on which edits are measured, at most; in tasks on pictures as many of "
        "other classes.",
        4,
        minimum=2,
    )
    lengths: list[float] = setting(
        "How far each patch is moved, in multiples of the mean norm of tokens, growing: the length that turns half of "
        "the targets is looked for among them, and interpolated.",
        GEOMETRIC,
        not_empty=True,
    )
    budget: int = setting(
        "Pairs of a latent and a class that each dictionary proposes by the estimate, and that are then edited to see "
        "how many are verified; 0 leaves that out.",
        20,
        minimum=0,
    )
    budget_images: int = setting(
        "Pictures of a class on which such a pair is edited, at most; and as many others for what is verified.",
        16,
        minimum=2,
    )
    budget_draws: int = setting("Untrained and frozen dictionaries, of each, that are given that budget.", 3, minimum=1)
    bootstrap: int = setting(
        "Resamples of pictures behind each interval, and sign flips behind tests.", 1000, minimum=10
    )
    batch_size: int = setting("Pictures edited at once.", 32, minimum=1)
    seed: int = setting("Seed of what is drawn.", 0, minimum=0)

    def trained(self) -> GainSettings:
        """Return what decides which dictionaries are trained and fitted, so that the rest trains nothing again."""
        return GainSettings(frozen=self.frozen, fitted=self.fitted)
