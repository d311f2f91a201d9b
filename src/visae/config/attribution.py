"""The settings of the attribution of latents to places of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class AttributionSettings:
    """Where in the picture a latent looks: gradients followed back to the pixels, and places covered as their check."""

    latents: int = setting(
        "Latents of each SAE, at most: those that have names, then the best of each class, then the strongest.",
        8,
        minimum=1,
    )
    pictures: int = setting("Pictures of each latent, those in which it is strongest.", 4, minimum=1)
    token: Literal["strongest", "active"] = setting(
        "What is attributed: the latent's value at the `strongest` token of the picture, or the sum of its values at "
        "all on which it is `active` there.",
        "strongest",
    )
    baseline: Literal["mean", "blur"] = setting(
        "What a picture without information is: its `mean` colour, or the picture under a `blur` as wide as a patch.",
        "mean",
    )
    points: int = setting(
        "Points between the baseline and the picture at which gradients are taken; their mean is used. With 1 it is "
        "the gradient at the picture itself.",
        16,
        minimum=1,
    )
    window: int = setting("Patches down and across that are covered at once.", 2, minimum=1)
    pairs: int = setting(
        "Pairs of pictures of split val, at most, of each cause in which two pictures differ, where there are any.",
        24,
        minimum=2,
    )
    latents_per_cause: int = setting(
        "Latents of each such cause: those whose value changes most with it on split train.", 4, minimum=1
    )
    shuffles: int = setting("Shuffled maps behind the agreement that chance would have.", 100, minimum=1)
    bootstrap: int = setting("Resamples behind each interval.", 1000, minimum=10)
    batch_size: int = setting("Pictures that go through the network at once.", 16, minimum=1)
    seed: int = setting("Seed of what is drawn.", 0, minimum=0)
