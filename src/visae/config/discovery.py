"""The settings of the atlas of causes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from visae.config.discovery_sets import SetSettings
from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class AtlasSettings:
    """How the latents that a task uses are found, and how they are proven."""

    tasks: list[str] = setting("Tasks that it is made for, of those of a study; empty: all.", [])
    pictures: int = setting(
        "Pictures of each class, of split train, on which the effect of every latent is estimated.", 32, minimum=1
    )
    points: int = setting(
        "Points at which gradients are taken, from the activation towards what is left of it without its codes; their "
        "mean is used. With 1 it is the gradient at the activation itself.",
        1,
        minimum=1,
    )
    verified: int = setting(
        "Pairs of a latent and a class that are edited: so many of the first of each ranking, by the estimate, by "
        "labels and at random.",
        100,
        minimum=1,
    )
    images: int = setting(
        "Pictures of a class, of split val, on which a pair is edited, at most; and as many others on which what has "
        "been proven has to show its effect again.",
        16,
        minimum=2,
    )
    doses: list[float] = setting(
        "Values that a latent is set to beside 0, as multiples of its largest on split train, for the dose that turns "
        "half of the targets.",
        [-0.5, -1.0, -2.0],
    )
    random_draws: int = setting("Random latents that each pair has to beat, their change as long.", 2, minimum=1)
    bootstrap: int = setting("Resamples behind each interval, and sign flips behind each test.", 1000, minimum=10)
    batch_size: int = setting("Pictures edited at once.", 32, minimum=1)
    seed: int = setting("Seed of what is drawn.", 0, minimum=0)
    sets: SetSettings = setting("Sets of latents that move a class together.", SetSettings())

    def proven(self) -> AtlasSettings:
        """Return what decides what is found and proven, so that other sets or tasks prove nothing again."""
        return replace(self, tasks=[], sets=SetSettings())
