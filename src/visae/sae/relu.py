"""ReLU with an L1 penalty (Stevens et al. 2025, arXiv 2502.06755)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visae.config.settings import ReluSettings
from visae.sae.sparse import SparseCodes, sparse_from_dense
from visae.sae.variant import BLOCK, Step, Weights, sparse_pass

# Codes denser than this are multiplied as a dense matrix: measured break-even on two CPU cores.
_SPARSE_BELOW = 0.08


class Relu:
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
        self.l1, self.l1_warmup_steps = l1, l1_warmup_steps
        self._codes = torch.empty(0)
        self._gradient = torch.empty(0)

    @classmethod
    def from_settings(cls, settings: ReluSettings, width: int) -> Relu:
        """Variant for training."""
        return cls(settings.l1, settings.l1_warmup_steps)

    def options(self) -> dict[str, Any]:
        """Nothing: the weights are all that the code rule needs."""
        return {}

    def dense(self, pre_activations: Tensor) -> Tensor:
        """Codes (n, width) from pre-activations (n, width)."""
        return pre_activations.relu()

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        parts = [
            sparse_from_dense(torch.addmm(encoder_bias, block, encoder.T).relu_()) for block in inputs.split(BLOCK)
        ]
        if not parts:
            return sparse_from_dense(inputs.new_zeros(0, len(encoder)))
        counts = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        latents, values = torch.cat([part.latents for part in parts]), torch.cat([part.values for part in parts])
        return SparseCodes(latents, values, offsets, len(encoder))

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor) -> Step:
        """Loss and gradients of one batch; see `Variant.step`. Dead latents get no help from this loss."""
        penalty = self.l1 * min(1.0, (number + 1) / max(1, self.l1_warmup_steps))
        if self._codes.shape != (len(inputs), len(weights.encoder)) or self._codes.device != inputs.device:
            self._codes = inputs.new_empty(len(inputs), len(weights.encoder))
            self._gradient = torch.empty_like(self._codes)
        torch.addmm(weights.encoder_bias, inputs, weights.encoder.T, out=self._codes).relu_()
        codes = sparse_from_dense(self._codes)
        if len(codes.values) < _SPARSE_BELOW * self._codes.numel():
            error, gradients = sparse_pass(weights, inputs, inputs, codes, penalty)
        else:
            error, gradients = self._dense_pass(weights, inputs, penalty)
        reconstruction = error.square().mean()
        sparsity = penalty * codes.values.sum() / len(inputs)
        losses = {"loss": reconstruction + sparsity, "reconstruction": reconstruction, "sparsity": sparsity}
        return Step(codes, error, losses, gradients)

    def _dense_pass(self, weights: Weights, inputs: Tensor, penalty: float) -> tuple[Tensor, Weights]:
        """Same as `sparse_pass`, by matrix products with the dense codes in the buffer."""
        codes = self._codes
        error = torch.addmm(weights.decoder_bias, codes, weights.decoder).sub_(inputs)
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
