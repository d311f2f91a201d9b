"""The settings of what is measured on counterfactual pairs."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class CounterfactualSettings:
    """How latents are measured, tested and edited on pairs of pictures that differ in one cause."""

    ratio: float = setting(
        "Latents are chosen for a cause, on split train, that change at least that many times as much with it as with "
        "any other, each counted in units of the network's own change; whether they are selective is tested on val.",
        1.5,
        minimum=1,
    )
    least_pictures: int = setting(
        "Pictures of split train in which a latent has to be active to take part.", 10, minimum=1
    )
    untrained: int = setting(
        "Untrained dictionaries that are measured beside those of the study, as wide and as sparse as its first.",
        5,
        minimum=0,
    )
    most_latents: int = setting(
        "Latents of a cause that are edited together, at most: those that are most selective for it on split train.",
        20,
        minimum=1,
    )
    scenes: int = setting("Scenes of split val that are edited, at most.", 60, minimum=2)
    random_draws: int = setting(
        "Sets of random latents, as many, that are edited beside them, their change as long on each token.",
        3,
        minimum=1,
    )
    c_values: list[float] = setting(
        "Inverse regularization strengths of the probes to try; chosen by held-out scenes of train.",
        [0.001, 0.01, 0.1],
        not_empty=True,
    )
    permutations: int = setting(
        "Random swaps of causes behind each test; the smallest p-value is 1 / (1 + permutations).", 2000, minimum=100
    )
    bootstrap: int = setting("Resamples of scenes behind each interval.", 1000, minimum=10)
    batch_size: int = setting("Pictures encoded and edited at once.", 16, minimum=1)
    seed: int = setting("Seed of what is drawn.", 0, minimum=0)
