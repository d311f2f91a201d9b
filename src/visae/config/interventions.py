"""The settings of interventions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from visae.config.fields import setting

Control = Literal[
    "reconstruction",
    "random_vector",
    "random_latent",
    "frequency_matched",
    "neuron",
    "class_difference",
    "head_weight",
    "latent_by_auc",
    "latent_by_gradient",
]


NATURAL, MATCHED = "natural", "matched"
SIZES = (NATURAL, MATCHED)
AUTOMATIC = "automatic"
ARMS = ("none", *get_args(Control), "manual", AUTOMATIC)
"""Every arm there is, in the order of tables: from no edit over controls to the latents that are claimed to matter."""


@dataclass(frozen=True, kw_only=True)
class InterventionSettings:
    """What is edited, how strongly, and how it is judged."""

    scales: list[float] = setting(
        "Values that the latent is set to, as multiples of its largest on the selection split; 0 suppresses.",
        [-2.0, 0.0],
    )
    insert_scale: float = setting("Multiple of the largest value at which a latent is inserted.", 1.0)
    arms: list[Control] = setting(
        "What the class's latents are compared with, each at its natural size and with the length of their change on "
        "each patch: the SAE's reconstruction, a vector and a latent drawn at random, a latent drawn among those about "
        "as often active, the raw neuron that tells the class best, the difference between the class's mean patch "
        "and all others', the direction in which the head reads the class, and the latents that another way of "
        "choosing takes. No edit, and the study's `manual` latents, are always compared.",
        list(get_args(Control)),
    )
    choose_by: Literal["f1", "auc", "gradient"] = setting(
        "How a class's latents are chosen on split train: by the F1 or the area under the ROC curve with which they "
        "find its patches, or by their activation times the gradient of the class's log odds there.",
        "f1",
    )
    latents_per_class: int = setting(
        "Latents of a class that are edited at once, the best first.", 1, minimum=1, maximum=5
    )
    random_draws: int = setting(
        "Random vectors, random latents and frequency-matched latents drawn per class; their mean is shown.",
        2,
        minimum=1,
    )
    images: int | None = setting(
        "Pictures of each class on which segmentation is edited, at most; more are drawn from. Without a number, all.",
        None,
        minimum=1,
    )
    doses: list[float] = setting(
        "Values that the latent is set to for the curves of dose and response, as multiples of its largest on the "
        "selection split; an empty list draws none.",
        [-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0],
    )
    dose_quantiles: list[float] = setting(
        "Natural doses: quantiles of the latent's active values on the selection split.", [0.5, 0.9]
    )
    untrained: int = setting(
        "Untrained dictionaries whose latents, chosen in the same way, the class's latents are ranked among; the "
        "smallest p-value is 1 / (1 + untrained). 0 leaves the test out.",
        39,
        minimum=0,
    )
    sample: int = setting(
        "Pictures of each class on which doses and untrained dictionaries are run, at most; drawn from `images`.",
        16,
        minimum=1,
    )
    bootstrap: int = setting(
        "Resamples of pictures behind each confidence interval, and sign flips behind each paired test.",
        1000,
        minimum=10,
    )
    batch_size: int = setting("Pictures edited at once.", 32, minimum=1)
    classification_images: int = setting(
        "Pictures of each class on which classification is edited, at most, and as many of other classes: to see what "
        "else suppressing the class's latents does, and to insert them.",
        32,
        minimum=1,
    )
    seed: int = setting("Seed of the random arms and of the bootstrap.", 0, minimum=0)
