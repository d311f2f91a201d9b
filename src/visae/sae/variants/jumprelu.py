"""JumpReLU: latents cut off below thresholds that are learned (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from visae.config.settings import JumpReluSettings
from visae.products import linear
from visae.sae.variants.relu import ACTIVE_AT_FIRST
from visae.sae.variants.selection import selected
from visae.sae.variants.sparse import SparseCodes, by_latent, value_gradients
from visae.sae.variants.variant import Step, Variant, Weights, reconstruction_error, upper_quantiles, warmed_up

# Codes a token that it starts out with, where that is the smaller share of the latents.
_CODES_AT_FIRST = 64


class JumpRelu(Variant):
    """A pre-activation z is a code where it is above its latent's threshold t: f = z H(z - t).

    The loss is the squared error's mean over all elements plus `sparsity` times the mean over tokens of a penalty:
    the number of active latents, sum H(z - t) (`l0`), or sum tanh(tanh_scale f) (`tanh`). H has no useful
    gradient in t; the paper's straight-through estimators stand for it, with the rectangle
    kernel K of width e = `bandwidth`: df/dt = -(t / e) K((z - t) / e), dH/dt = -(1 / e) K((z - t) / e). Gradients in
    z are those of the function itself. Thresholds stay positive because their logarithms are what is trained.

    Parameters
    ----------
    width
        Number of latents.
    penalty
        `l0` or `tanh`.
    sparsity, sparsity_warmup_steps
        Weight of the penalty, and the steps over which it grows linearly.
    bandwidth
        Width of the kernel.
    tanh_scale
        Steepness of the tanh.

    Attributes
    ----------
    log_threshold
        (width,), logarithms of the thresholds.
    """

    name = "jumprelu"

    def __init__(
        self,
        width: int,
        penalty: str = "l0",
        sparsity: float = 0.0,
        sparsity_warmup_steps: int = 0,
        bandwidth: float = 0.2,
        tanh_scale: float = 4.0,
    ) -> None:
        super().__init__()
        self.width, self.penalty, self.bandwidth, self.tanh_scale = width, penalty, bandwidth, tanh_scale
        self.sparsity, self.sparsity_warmup_steps = sparsity, sparsity_warmup_steps
        self.log_threshold = nn.Parameter(torch.zeros(width))

    @classmethod
    def from_settings(cls, settings: JumpReluSettings, width: int, d_model: int) -> JumpRelu:
        """Variant for training."""
        return cls(
            width,
            settings.penalty,
            settings.sparsity,
            settings.sparsity_warmup_steps,
            settings.bandwidth,
            settings.tanh_scale,
        )

    def options(self) -> dict[str, Any]:
        """Return the number of latents."""
        return {"width": self.width}

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Set thresholds so that each latent is active on a small share of the tokens (n, d_model).

        Codes are not small there, as those of `Relu` are, so too many of them add up to far too much.
        """
        quantile = upper_quantiles(inputs, weights.encoder, min(ACTIVE_AT_FIRST, _CODES_AT_FIRST / self.width))
        # Above the kernel's half width: below it, pre-activations under zero would move thresholds.
        # And a little above the token whose value it is, so that rounding does not decide about that token.
        self.log_threshold.detach().copy_(quantile.clamp(min=self.bandwidth).mul(1 + 1e-5).log())

    def scale(self, weights: Weights, factors: Tensor) -> None:
        """Make each latent's codes `factors` (width,) times as large; thresholds stay above the kernel's half width."""
        super().scale(weights, factors)
        self.log_threshold.detach().add_(factors.log()).clamp_(min=math.log(self.bandwidth))

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable, but not in the thresholds."""
        pre_activations = linear(inputs, encoder, encoder_bias)
        return pre_activations * (pre_activations > self.log_threshold.exp())

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        threshold = self.log_threshold.detach().exp()
        return selected(inputs, encoder, encoder_bias, threshold)

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; see `Variant.step`. Dead latents get no help from this loss."""
        target = inputs if target is None else target
        penalty = warmed_up(self.sparsity, self.sparsity_warmup_steps, number) / len(inputs)
        threshold = self.log_threshold.detach().exp()
        lowest = threshold - self.bandwidth / 2
        # Entries within the kernel are carried along although they are not active: thresholds learn from them.
        near = selected(inputs, weights.encoder, weights.encoder_bias, lowest)
        own = threshold[near.latents]
        active = near.values > own
        codes = near.with_values(near.values * active)
        error = reconstruction_error(weights, target, codes)
        output_gradient = error * (2 / error.numel())
        code_gradient = value_gradients(codes, output_gradient, weights.decoder)
        # The kernel's part of both estimators, as a gradient in the threshold's logarithm.
        kernel = ((near.values - own).abs() < self.bandwidth / 2) * (-own / self.bandwidth)
        if self.penalty == "tanh":
            squashed = torch.tanh(self.tanh_scale * codes.values)
            code_gradient += penalty * self.tanh_scale * (1 - squashed.square())
            sparsity = penalty * squashed.sum()
            threshold_gradient = kernel * own * code_gradient
        else:
            sparsity = penalty * active.sum()
            threshold_gradient = kernel * (own * code_gradient + penalty)
        sorted_codes = by_latent(codes)
        gradients = Weights(
            encoder=sorted_codes.row_gradients(code_gradient * active, inputs),
            encoder_bias=sorted_codes.sums(code_gradient * active),
            decoder=sorted_codes.row_gradients(codes.values, output_gradient),
            decoder_bias=output_gradient.sum(0),
        )
        reconstruction = error.square().mean()
        losses = {"loss": reconstruction + sparsity, "reconstruction": reconstruction, "sparsity": sparsity}
        return Step(codes, error, losses, gradients, (sorted_codes.sums(threshold_gradient),))
