"""The tasks of a study whose readout is a file of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class ZeroShotSettings:
    """Classification by class vectors, such as CLIP's text embeddings, beside the model's own projection."""

    dataset: str = setting("Data set with labels.")
    vectors: str = setting(
        "safetensors file with `vectors` (n_classes, d), and in its metadata `names`, a JSON list of the data set's "
        "class names, one a row; `logit_scale` and `architecture` where they are known."
    )


@dataclass(frozen=True, kw_only=True)
class ReadoutSettings:
    """Any linear readout of given activations, such as a recommender's items: what comes first for a row."""

    dataset: str = setting("Data set of kind `activations`.")
    weights: str = setting(
        "safetensors file with `weight` (n_outputs, d), and in its metadata `names`, a JSON list, one an output, and "
        "`classes`, a JSON list of the class of each; without `classes` each output is its own."
    )
    first: int = setting("Outputs of the list that is compared before and after.", 10, minimum=1)
