"""The sections of sparse autoencoders: what all share, and what each variant adds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from visae.config.baselines import (  # noqa: F401
    BaselineSettings,
    KMeansSettings,
    NeuronsSettings,
    NmfSettings,
    PcaSettings,
    RandomSettings,
)
from visae.config.fields import setting
from visae.config.kinds import Normalization, TokenKinds

# Of fewer steps the default learning rates are those of so many.
_SHORTEST = 100


@dataclass(frozen=True, kw_only=True)
class SaeSettings:
    """What all sparse autoencoders share."""

    # The default learning rate is the first over the steps to the power of the second.
    default_rate: ClassVar[float] = 0.08
    steps_power: ClassVar[float] = 1 / 2

    expansion: int = setting("Latents per dimension of the activations (the expansion factor).", 8, minimum=1)
    steps: int = setting(
        "Optimizer steps; with 0 the SAE stays as it is initialized: the untrained twin of a trained one.",
        300,
        minimum=0,
    )
    batch_size: int = setting("Tokens in a step.", 2048, minimum=1)
    learning_rate: float | None = setting(
        "Adam's peak learning rate; left out, 0.08 divided by the square root of `steps`, which count as at least 100 "
        "(`relu`: 0.036 divided by their fourth root).",
        None,
        above=0,
    )
    bias_rate: float | None = setting(
        "Learning rate of biases as a multiple of the weights'; left out, 1 (`relu`: (1200 / `steps`)^1.5, in which "
        "`steps` count as at least 100 and at most 1200).",
        None,
        above=0,
    )
    warmup_steps: int = setting("Steps over which the learning rate grows linearly to its peak.", 10, minimum=0)
    decay_share: float = setting(
        "Share of the steps, at the end, over which the learning rate falls linearly to zero.",
        0.3,
        minimum=0,
        maximum=1,
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "What the encoder's product computes in while training; the weights stay float32. `auto` is bfloat16 on a GPU "
        "that has it and float32 elsewhere.",
        "auto",
    )
    gradient_clip: float = setting("Largest norm of the gradient.", 1.0, above=0)
    encoder_start: Literal["fitted", "unit"] = setting(
        "Length of the encoder's rows at the start: `fitted`, where the first reconstructions are as good as they can "
        "be, or `unit`, like the decoder's. With `unit` they overshoot, and a short training is spent on that.",
        "fitted",
    )
    seed: int = setting("Seed of the initial weights and of the order of the data.", 0, minimum=0)
    log_every: int = setting("Steps between two rows of metrics.parquet.", 10, minimum=1)
    checkpoint_every: int = setting("Steps between two checkpoints.", 100, minimum=1)
    dead_after_tokens: int = setting("A latent silent for that many tokens counts as dead.", 100_000, minimum=1)
    clamp: float | None = setting(
        "Before encoding, each dimension is clamped to its mean plus or minus that many of its standard deviations; "
        "left out, nothing is clamped.",
        None,
        above=0,
    )
    tokens: TokenKinds = setting(
        "What it is trained on and describes: the `patches` of pictures, their `class` tokens, or `all` tokens with "
        "registers. An exemplar of a class token is the picture, and edits move the class token.",
        "patches",
    )
    normalization: Normalization = setting(
        "What activations go through before they are encoded: `scale`, less their mean and over one number; "
        "`per_dimension`, less their mean and over each dimension's standard deviation; `per_token`, each less its own "
        "mean over the dimensions and over its own standard deviation, as layer norm does; `none`. What comes out is "
        "in raw units again. With `none`, learning rates and penalties are in raw units too: where activations are "
        "large, other rates are needed.",
        "scale",
    )
    target_layer: int | None = setting(
        "Makes the SAE a transcoder: its codes, read from the study's layer, shall give the activations of this block, "
        "counted from 0. Transcoders can be described, not edited.",
        None,
        minimum=0,
    )
    target_hook: Literal["residual", "attention", "mlp", "norm"] = setting(
        "What of that block; as a study's `hook`. Without effect without `target_layer`.", "residual"
    )

    @property
    def peak_learning_rate(self) -> float:
        """Adam's peak learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return self.default_rate / max(self.steps, _SHORTEST) ** self.steps_power

    @property
    def bias_multiple(self) -> float:
        """Learning rate of biases as a multiple of the weights'."""
        return 1.0 if self.bias_rate is None else self.bias_rate

    @property
    def rates(self) -> dict[str, float]:
        """What these two keys come to: where they are left out, another version of visae may choose otherwise."""
        return {"learning_rate": self.peak_learning_rate, "bias_rate": self.bias_multiple}

    @property
    def target_point(self) -> str | None:
        """Layer and hook that a transcoder gives, as they stand in paths; None for other SAEs."""
        if self.target_layer is None:
            return None
        return point_text(self.target_layer, self.target_hook)


@dataclass(frozen=True, kw_only=True)
class _TopKShared(SaeSettings):
    """What the variants share that keep a fixed number of latents."""

    k: int = setting("Latents kept per token.", 32, minimum=1)
    auxk: int = setting("Dead latents that also learn from the residual, per token; 0 turns it off.", 64, minimum=0)
    auxk_weight: float = setting("Weight of that auxiliary loss.", 1 / 32, minimum=0)


@dataclass(frozen=True, kw_only=True)
class TopKSettings(_TopKShared):
    """The k largest latents of each token are kept (Gao et al. 2024, arXiv 2406.04093)."""

    variant: Literal["topk"]


@dataclass(frozen=True, kw_only=True)
class FrozenDecoderSettings(_TopKShared):
    """TopK over random directions, to compare with: the encoder alone is trained (see arXiv 2602.14111)."""

    variant: Literal["frozen_decoder"]
    drawn: int = setting(
        "Which of the random decoders that belong to `seed`: those that differ in it learn from the same batches.",
        0,
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True)
class BatchTopKSettings(_TopKShared):
    """The largest latents of a whole batch are kept, `k` a token (Bussmann et al. 2024, arXiv 2412.06410)."""

    variant: Literal["batchtopk"]
    threshold_rate: float = setting(
        "Weight of a step in the running mean of the smallest kept value, which is the threshold after training; the "
        "first steps count alike until each would weigh less.",
        0.05,
        above=0,
        maximum=1,
    )


@dataclass(frozen=True, kw_only=True)
class MatryoshkaSettings(_TopKShared):
    """Nested prefixes of the latents each reconstruct on their own (Bussmann et al. 2025, arXiv 2503.17547)."""

    variant: Literal["matryoshka"]
    over: Literal["topk", "batchtopk"] = setting("Which latents are kept.", "topk")
    threshold_rate: float = setting("As of `batchtopk`; without effect over `topk`.", 0.05, above=0, maximum=1)
    prefixes: list[int] = setting(
        "Numbers of latents of the prefixes, growing, the last one all latents; left empty, they are drawn anew in "
        "each step, short ones more often.",
        [],
    )
    drawn_prefixes: int = setting("How many prefixes are drawn, all latents among them.", 5, minimum=1)


@dataclass(frozen=True, kw_only=True)
class ArchetypalSettings(_TopKShared):
    """Decoder rows are directions of convex combinations of data points (Fel et al. 2025, arXiv 2502.12892)."""

    variant: Literal["archetypal"]
    points: int = setting(
        "Data points (means of clusters of a sample) that rows are combined of.", 512, minimum=2, maximum=8192
    )
    relaxation: float = setting(
        "How far a combination may leave the points' convex hull, as a share of the points' mean norm.", 0.0, minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class ReluSettings(SaeSettings):
    """ReLU latents with an L1 penalty and unit-norm decoder rows (Stevens et al. 2025, arXiv 2502.06755)."""

    default_rate: ClassVar[float] = 0.036
    steps_power: ClassVar[float] = 1 / 4

    variant: Literal["relu"]
    l1: float = setting("Weight of the L1 penalty.", 5e-3, minimum=0)
    l1_warmup_steps: int = setting("Steps over which the L1 weight grows linearly.", 50, minimum=0)

    @property
    def bias_multiple(self) -> float:
        """Learning rate of biases as a multiple of the weights'.

        Biases alone keep a latent silent. What latents add up to is about sqrt(d_model) times as large as a weight, so
        they have further to go than any weight, and in a short training little time.
        """
        if self.bias_rate is not None:
            return self.bias_rate
        return max(1.0, 1200 / max(self.steps, _SHORTEST)) ** 1.5


@dataclass(frozen=True, kw_only=True)
class JumpReluSettings(SaeSettings):
    """Each latent is cut off below a threshold that it learns (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    variant: Literal["jumprelu"]
    penalty: Literal["l0", "tanh"] = setting(
        "What is penalized: the number of active latents (`l0`), or the sum over them of tanh(tanh_scale x code).", "l0"
    )
    sparsity: float = setting("Weight of the penalty.", 5e-3, minimum=0)
    sparsity_warmup_steps: int = setting("Steps over which that weight grows linearly.", 50, minimum=0)
    bandwidth: float = setting("Width of the kernel through which thresholds learn, in units of codes.", 0.2, above=0)
    tanh_scale: float = setting("Steepness of the tanh; without effect on `l0`.", 4.0, above=0)


@dataclass(frozen=True, kw_only=True)
class GatedSettings(SaeSettings):
    """Whether a latent is active and how much are computed apart (Rajamanoharan et al. 2024, arXiv 2404.16014)."""

    variant: Literal["gated"]
    l1: float = setting("Weight of the L1 penalty on the gates.", 5e-3, minimum=0)
    l1_warmup_steps: int = setting("Steps over which the L1 weight grows linearly.", 50, minimum=0)


AnySae = (
    TopKSettings
    | FrozenDecoderSettings
    | BatchTopKSettings
    | MatryoshkaSettings
    | ArchetypalSettings
    | ReluSettings
    | JumpReluSettings
    | GatedSettings
    | PcaSettings
    | KMeansSettings
    | NmfSettings
    | RandomSettings
    | NeuronsSettings
)


def point_text(layer: int, hook: str) -> str:
    """Layer and hook as they stand in paths: `10`, `10-attention`."""
    return str(layer) if hook == "residual" else f"{layer}-{hook}"


def growing(prefixes: list[int]) -> bool:
    """Whether numbers of latents are positive and each larger than the one before."""
    return all(before < after for before, after in pairwise([0, *prefixes]))
