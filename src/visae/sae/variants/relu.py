"""ReLU with an L1 penalty (Stevens et al. 2025, arXiv 2502.06755)."""

from __future__ import annotations

import torch
from torch import Tensor

from visae.config.settings import ReluSettings
from visae.products import linear
from visae.sae.variants.selection import BLOCK, selected
from visae.sae.variants.sparse import SparseCodes
from visae.sae.variants.variant import SparsePass, Step, Variant, Weights, sparse_pass, upper_quantiles, warmed_up

# Share of the tokens that each latent starts out active on.
ACTIVE_AT_FIRST = 0.05

# Codes denser than this are multiplied as a dense matrix: measured break-even on two CPU cores.
_SPARSE_BELOW = 0.2


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

    @classmethod
    def from_settings(cls, settings: ReluSettings, width: int, d_model: int) -> Relu:
        """Variant for training."""
        return cls(settings.l1, settings.l1_warmup_steps)

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Let each latent be active on a small share of the tokens (n, d_model).

        With half of all latents active, the first reconstructions are far too large, and a short training is spent on
        that.
        """
        weights.encoder_bias.copy_(-upper_quantiles(inputs, weights.encoder, ACTIVE_AT_FIRST))

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable."""
        return linear(inputs, encoder, encoder_bias).relu()

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        return selected(inputs, encoder, encoder_bias)

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; see `Variant.step`. Dead latents get no help from this loss."""
        target = inputs if target is None else target
        penalty = warmed_up(self.l1, self.l1_warmup_steps, number)
        codes = selected(inputs, weights.encoder, weights.encoder_bias)
        if len(codes.values) < _SPARSE_BELOW * len(inputs) * len(weights.encoder):
            error, gradients = sparse_pass(weights, inputs, target, codes, penalty)
        else:
            with torch.autocast(inputs.device.type, enabled=False):
                error, gradients = _dense_pass(weights, inputs, target, penalty)
        reconstruction = error.square().mean()
        sparsity = penalty * codes.values.sum() / len(inputs)
        losses = {"loss": reconstruction + sparsity, "reconstruction": reconstruction, "sparsity": sparsity}
        return Step(codes, error, losses, gradients)


def _dense_pass(weights: Weights, inputs: Tensor, target: Tensor, penalty: float) -> SparsePass:
    """Same as `sparse_pass` by matrix products, block for block."""
    errors, gradients = torch.empty_like(target), Weights(*(torch.zeros_like(part) for part in weights))
    blocks = zip(inputs.split(BLOCK), target.split(BLOCK), errors.split(BLOCK), strict=True)
    for rows, wanted, error in blocks:
        codes = linear(rows, weights.encoder, weights.encoder_bias).relu_()
        torch.sub(linear(codes, weights.decoder.T, weights.decoder_bias), wanted, out=error)
        output_gradient = error * (2 / errors.numel())
        code_gradient = linear(output_gradient, weights.decoder).add_(penalty / len(inputs)).mul_(codes > 0)
        gradients.encoder.addmm_(code_gradient.T, rows)
        gradients.encoder_bias.add_(code_gradient.sum(0))
        gradients.decoder.addmm_(codes.T, output_gradient)
        gradients.decoder_bias.add_(output_gradient.sum(0))
    return SparsePass(errors, gradients)
