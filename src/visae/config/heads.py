"""The sections of task heads and of what replacing activations costs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Linear probe on the last block's normed tokens, pooled over each picture."""

    pooling: Literal["both", "class_token", "mean"] = setting(
        "What of a picture is read: its `class_token`, the `mean` of its patches, or `both` side by side. A model "
        "without [CLS] gives the mean alone.",
        "both",
    )
    solver: Literal["auto", "scikit-learn", "torch"] = setting(
        "`torch` goes over the features in pieces, from disk where they are many, and on a GPU where there is one; "
        "`auto` takes it above 20 million values (pictures times features). Both minimize the same loss.",
        "auto",
    )
    c_values: list[float] = setting(
        "Inverse regularization strengths to try; chosen on a held-out part of train.",
        [0.01, 0.1, 1.0, 10.0],
        not_empty=True,
    )
    max_iterations: int = setting("Iterations of the solver.", 1000, minimum=1)
    seed: int = setting("Seed of the held-out part.", 0, minimum=0)


@dataclass(frozen=True, kw_only=True)
class SegmentationHeadSettings:
    """Head on the last block's normed patch tokens."""

    kind: Literal["linear", "mlp", "conv"] = setting(
        "`linear`: one map from a patch to its classes; `mlp`: with a hidden layer; `conv`: the hidden layer sees "
        "3 x 3 patches.",
        "linear",
    )
    hidden: int = setting("Width of the hidden layer of `mlp` and `conv`.", 256, minimum=1)
    epochs: int = setting("Passes over the training pictures.", 15, minimum=1)
    learning_rates: list[float] = setting(
        "AdamW's learning rates to try. With more than one combination, all learn from one reading of four fifths of "
        "the training pictures, the best on the rest (mean IoU) is chosen, and learns again from all.",
        [0.003, 0.01, 0.03],
        not_empty=True,
    )
    weight_decays: list[float] = setting(
        "AdamW's weight decays to try, with each learning rate.", [0.001, 0.1], not_empty=True
    )
    batch_size: int = setting("Pictures in a step.", 16, minimum=1)
    memory_gb: float = setting(
        "Tokens are held in memory up to this size; of larger sets, pools of this size are read from the store in "
        "every epoch and shuffled.",
        4.0,
        above=0,
    )
    seed: int = setting("Seed of the initial weights, of the held-out part and of the order of the data.", 0, minimum=0)


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """The task heads that interventions are measured with."""

    probe: ProbeSettings = setting("Classification.", ProbeSettings())
    segmentation: SegmentationHeadSettings = setting("Segmentation.", SegmentationHeadSettings())


@dataclass(frozen=True, kw_only=True)
class FaithfulnessSettings:
    """What replacing a layer's patches by the SAE's reconstruction, by their mean and by zero costs the heads."""

    mean_images: int = setting("Pictures of train, evenly spaced, over which the mean patch is taken.", 1000, minimum=1)
    batch_size: int = setting("Pictures at once.", 32, minimum=1)
    bootstrap: int = setting("Resamples of pictures behind each confidence interval.", 1000, minimum=10)
    seed: int = setting("Seed of the bootstrap.", 0, minimum=0)
