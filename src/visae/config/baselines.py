"""The sections of dictionaries that are fitted without a gradient step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from visae.config.fields import setting
from visae.config.kinds import Normalization, TokenKinds


@dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """What all dictionaries share that are fitted without a gradient step, to compare SAEs with.

    Of each patch the `k` largest encodings are kept, as `topk` does.
    """

    k: int = setting("Latents kept per token.", 32, minimum=1)
    batch_size: int = setting("Tokens that are read, and learned from, at once.", 2048, minimum=1)
    seed: int = setting("Seed of what is drawn, and of the order of the data.", 0, minimum=0)
    clamp: float | None = setting("As of an SAE.", None, above=0)
    tokens: TokenKinds = setting("As of an SAE.", "patches")
    normalization: Normalization = setting("As of an SAE.", "scale")

    # What an SAE's section says besides, where there is nothing to train.
    steps: ClassVar[int] = 0
    learning_rate: ClassVar[float] = 0.0
    peak_learning_rate: ClassVar[float] = 0.0
    bias_multiple: ClassVar[float] = 1.0
    rates: ClassVar[dict[str, float]] = {}
    encoder_start: ClassVar[Literal["unit"]] = "unit"
    warmup_steps: ClassVar[int] = 0
    decay_share: ClassVar[float] = 0.0
    gradient_clip: ClassVar[float] = 1.0
    precision: ClassVar[Literal["float32"]] = "float32"
    log_every: ClassVar[int] = 1
    checkpoint_every: ClassVar[int] = 1
    dead_after_tokens: ClassVar[int] = 1
    target_layer: ClassVar[None] = None
    target_point: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class PcaSettings(BaselineSettings):
    """Principal components, two latents each: one for either sign."""

    variant: Literal["pca"]
    expansion: ClassVar[int] = 2


@dataclass(frozen=True, kw_only=True)
class NeuronsSettings(BaselineSettings):
    """The centred activations themselves, two latents a dimension: one for either sign."""

    variant: Literal["neurons"]
    expansion: ClassVar[int] = 2


@dataclass(frozen=True, kw_only=True)
class _WideBaselineSettings(BaselineSettings):
    expansion: int = setting("Latents per dimension of the activations.", 8, minimum=1)


@dataclass(frozen=True, kw_only=True)
class KMeansSettings(_WideBaselineSettings):
    """Means of clusters (scikit-learn's MiniBatchKMeans), a latent each."""

    variant: Literal["kmeans"]
    passes: int = setting("Passes over the sample.", 2, minimum=1)


@dataclass(frozen=True, kw_only=True)
class NmfSettings(_WideBaselineSettings):
    """Components of a non-negative factorization (scikit-learn's MiniBatchNMF), a latent each; slow to fit."""

    variant: Literal["nmf"]
    expansion: int = setting("Latents per dimension of the activations.", 1, minimum=1)
    passes: int = setting("Passes over the sample.", 1, minimum=1)


@dataclass(frozen=True, kw_only=True)
class RandomSettings(_WideBaselineSettings):
    """Random directions."""

    variant: Literal["random"]
