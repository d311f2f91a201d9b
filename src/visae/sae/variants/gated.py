"""Gated: whether a latent is active and how much are computed apart (Rajamanoharan et al. 2024, arXiv 2404.16014)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visae.config.settings import GatedSettings
from visae.products import linear
from visae.sae.variants.relu import ACTIVE_AT_FIRST
from visae.sae.variants.selection import selected
from visae.sae.variants.sparse import SparseCodes, by_latent, value_gradients
from visae.sae.variants.variant import Step, Variant, Weights, reconstruction_error, upper_quantiles, warmed_up


class Gated(Variant):
    """Codes are 1[gate > 0] ReLU(magnitude), in which both paths share the encoder's directions.

    gate = W x + encoder_bias; magnitude = exp(log_scale) W x + magnitude_bias (the paper's r_mag and b_mag). The loss
    is the sum of three parts: the squared error's mean over all elements; `l1` times the mean over tokens
    of the sum of ReLU(gate); the squared error of what ReLU(gate) alone reconstructs with decoder and bias frozen.
    The last two train the gates, through which the first has no gradient, and shrink no magnitudes.

    Parameters
    ----------
    width
        Number of latents.
    l1, l1_warmup_steps
        Weight of the penalty, and the steps over which it grows linearly.

    Attributes
    ----------
    log_scale, magnitude_bias
        (width,).
    """

    name = "gated"

    def __init__(self, width: int, l1: float = 0.0, l1_warmup_steps: int = 0) -> None:
        super().__init__()
        self.width, self.l1, self.l1_warmup_steps = width, l1, l1_warmup_steps
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.magnitude_bias = nn.Parameter(torch.zeros(width))

    @classmethod
    def from_settings(cls, settings: GatedSettings, width: int, d_model: int) -> Gated:
        """Variant for training."""
        return cls(width, settings.l1, settings.l1_warmup_steps)

    def options(self) -> dict[str, Any]:
        """Return the number of latents."""
        return {"width": self.width}

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Let each latent be active on a small share of the tokens (n, d_model)."""
        weights.encoder_bias.copy_(-upper_quantiles(inputs, weights.encoder, ACTIVE_AT_FIRST))
        self.magnitude_bias.detach().copy_(weights.encoder_bias)

    def scale(self, weights: Weights, factors: Tensor) -> None:
        """Make each latent's codes `factors` (width,) times as large, in place."""
        super().scale(weights, factors)
        self.magnitude_bias.detach().mul_(factors)

    def shift(self, weights: Weights, middle: Tensor) -> None:
        """Let inputs be `middle` (d_model,) larger than those that the weights were fitted to, in place."""
        super().shift(weights, middle)
        self.magnitude_bias.detach().sub_(self.log_scale.detach().exp() * (weights.encoder @ middle))

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable, but not through the gates."""
        projected = linear(inputs, encoder)
        magnitudes = projected * self.log_scale.exp() + self.magnitude_bias
        return magnitudes.relu() * (projected + encoder_bias > 0)

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        gates = selected(inputs, encoder, encoder_bias)
        return gates.with_values(self._magnitudes(gates, encoder_bias).relu_()).without_zeros()

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; see `Variant.step`. Dead latents get no help from this loss."""
        target = inputs if target is None else target
        penalty = warmed_up(self.l1, self.l1_warmup_steps, number) / len(inputs)
        gates = selected(inputs, weights.encoder, weights.encoder_bias)
        magnitudes = self._magnitudes(gates, weights.encoder_bias)
        codes = gates.with_values(magnitudes.relu())
        error = reconstruction_error(weights, target, codes)
        output_gradient = error * (2 / error.numel())
        by_gates = reconstruction_error(weights, target, gates)
        # In the magnitudes from the first part of the loss, in the gates from the other two.
        magnitude_gradient = value_gradients(codes, output_gradient, weights.decoder) * (magnitudes > 0)
        gate_gradient = value_gradients(gates, by_gates * (2 / by_gates.numel()), weights.decoder).add_(penalty)
        scale = self.log_scale.detach().exp()[gates.latents]
        scaled = magnitudes - self.magnitude_bias.detach()[gates.latents]
        sorted_codes = by_latent(codes)
        gradients = Weights(
            encoder=sorted_codes.row_gradients(magnitude_gradient * scale + gate_gradient, inputs),
            encoder_bias=sorted_codes.sums(gate_gradient),
            decoder=sorted_codes.row_gradients(codes.values, output_gradient),
            decoder_bias=output_gradient.sum(0),
        )
        own = (sorted_codes.sums(magnitude_gradient * scaled), sorted_codes.sums(magnitude_gradient))
        reconstruction, auxiliary = error.square().mean(), by_gates.square().mean()
        sparsity = penalty * gates.values.sum()
        losses = {
            "loss": reconstruction + sparsity + auxiliary,
            "reconstruction": reconstruction,
            "sparsity": sparsity,
            "gate_reconstruction": auxiliary,
        }
        return Step(codes, error, losses, gradients, own)

    def _magnitudes(self, gates: SparseCodes, encoder_bias: Tensor) -> Tensor:
        """Magnitude of each entry (nnz,), before the ReLU."""
        projected = gates.values - encoder_bias[gates.latents]
        scale, bias = self.log_scale.detach().exp(), self.magnitude_bias.detach()
        return projected * scale[gates.latents] + bias[gates.latents]
