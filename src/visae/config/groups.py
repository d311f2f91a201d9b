"""The settings of spurious latents: those that help on train and harm in some groups of pictures."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """How latents are found that serve a shortcut, and what suppressing them is compared with."""

    pictures: int = setting(
        "Pictures of each class of split train, and of each class and group of the half of split val that is chosen "
        "on, on which the effect of every latent is estimated, at most.",
        64,
        minimum=1,
    )
    points: int = setting(
        "Points at which gradients are taken, from the activation towards what is left of it without its codes; their "
        "mean is used. With 1 it is the gradient at the activation itself.",
        1,
        minimum=1,
    )
    suppressed: list[int] = setting(
        "Numbers of latents, the first of the ranking, that are suppressed together; which is best is chosen on one "
        "half of split val.",
        [1, 2, 5, 10, 20, 50],
        not_empty=True,
    )
    verified: int = setting(
        "First latents of the ranking that are also edited one by one, on the other half of split val.", 20, minimum=1
    )
    random_draws: int = setting("Draws of as many other latents that each edit has to beat.", 2, minimum=1)
    balanced_draws: int = setting(
        "Draws of equally many pictures of each group that a probe is retrained on; their weights are averaged.",
        10,
        minimum=1,
    )
    retrained_on: int = setting(
        "Pictures of train, drawn, on which a probe is retrained after an edit, at most.", 5000, minimum=2
    )
    bootstrap: int = setting("Resamples behind each interval, and sign flips behind each test.", 1000, minimum=10)
    batch_size: int = setting("Pictures edited at once.", 32, minimum=1)
    seed: int = setting("Seed of what is drawn.", 0, minimum=0)
