"""ReLU with an L1 penalty (Stevens et al. 2025, arXiv 2502.06755)."""

from __future__ import annotations

import torch
from torch import Tensor

from visae.config.settings import ReluSettings
from visae.sae.selection import selected
from visae.sae.sparse import SparseCodes, sparse_from_dense
from visae.sae.variant import Step, Variant, Weights, sparse_pass, upper_quantile, warmed_up

# Share of the tokens that each latent starts out active on.
ACTIVE_AT_FIRST = 0.05

# Codes denser than this are multiplied as a dense matrix: measured break-even on two CPU cores.
_SPARSE_BELOW = 0.08


class Relu(Variant):
    """Every positive pre-activation is a code.

    The loss is the squared error's mean over all elements plus `l1` times the mean over tokens of the sum of
    codes, in normalized units: centred activations have a mean square of 1 there, so the first part is the
    normalized mean squared error and `l1` means the same for every model and layer. It is meaningful only
    because decoder rows have unit norm.

    Parameters
    ----------
    l1
        Weight of the penalty.
    l1_warmup_steps
        Steps over which that weight grows linearly.
    """

    name = "relu"

    def __init__(self, l1: float = 0.0, l1_warmup_steps: int = 0) -> None:
        super().__init__()
        self.l1, self.l1_warmup_steps = l1, l1_warmup_steps
        self._codes = torch.empty(0)
        self._gradient = torch.empty(0)

    @classmethod
    def from_settings(cls, settings: ReluSettings, width: int, d_model: int) -> Relu:
        """Variant for training."""
        return cls(settings.l1, settings.l1_warmup_steps)

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Let each latent be active on a small share of the tokens (n, d_model).

        With half of all latents active, the first reconstructions are far too large, and a short training is spent on
        that.
        """
        weights.encoder_bias.copy_(-upper_quantile(inputs @ weights.encoder.T, ACTIVE_AT_FIRST))

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable."""
        return torch.addmm(encoder_bias, inputs, encoder.T).relu()

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        return selected(inputs, encoder, encoder_bias, lambda block: block > 0)

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; see `Variant.step`. Dead latents get no help from this loss."""
        target = inputs if target is None else target
        penalty = warmed_up(self.l1, self.l1_warmup_steps, number)
        if self._codes.shape != (len(inputs), len(weights.encoder)) or self._codes.device != inputs.device:
            self._codes = inputs.new_empty(len(inputs), len(weights.encoder))
            self._gradient = torch.empty_like(self._codes)
        torch.addmm(weights.encoder_bias, inputs, weights.encoder.T, out=self._codes).relu_()
        codes = sparse_from_dense(self._codes)
        if len(codes.values) < _SPARSE_BELOW * self._codes.numel():
            error, gradients = sparse_pass(weights, inputs, target, codes, penalty)
        else:
            error, gradients = self._dense_pass(weights, inputs, target, penalty)
        reconstruction = error.square().mean()
        sparsity = penalty * codes.values.sum() / len(inputs)
        losses = {"loss": reconstruction + sparsity, "reconstruction": reconstruction, "sparsity": sparsity}
        return Step(codes, error, losses, gradients)

    def _dense_pass(self, weights: Weights, inputs: Tensor, target: Tensor, penalty: float) -> tuple[Tensor, Weights]:
        """Same as `sparse_pass`, by matrix products with the dense codes in the buffer."""
        codes = self._codes
        error = torch.addmm(weights.decoder_bias, codes, weights.decoder).sub_(target)
        output_gradient = error * (2 / error.numel())
        torch.mm(output_gradient, weights.decoder.T, out=self._gradient)
        code_gradient = self._gradient.add_(penalty / len(inputs)).mul_(codes > 0)
        gradients = Weights(
            encoder=code_gradient.T @ inputs,
            encoder_bias=code_gradient.sum(0),
            decoder=codes.T @ output_gradient,
            decoder_bias=output_gradient.sum(0),
        )
        return error, gradients
