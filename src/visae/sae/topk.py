"""TopK: the k largest latents of each token (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visae.config.settings import TopKSettings
from visae.errors import ConfigError
from visae.sae.sparse import SparseCodes
from visae.sae.variant import BLOCK, Step, Weights, sparse_pass


class TopK:
    """Keep the k largest pre-activations of each token, cut at zero.

    Latents that have been silent for long learn from what the others leave over: the `auxk` largest of them
    reconstruct the residual, and that error, relative to the residual, is added with `auxk_weight`.

    Parameters
    ----------
    k
        Latents kept per token.
    auxk, auxk_weight
        Dead latents per token, and the weight of their loss.
    """

    name = "topk"

    def __init__(self, k: int, auxk: int = 0, auxk_weight: float = 0.0) -> None:
        self.k, self.auxk, self.auxk_weight = k, auxk, auxk_weight
        self._buffer = torch.empty(0)

    @classmethod
    def from_settings(cls, settings: TopKSettings, width: int) -> TopK:
        """Variant for training.

        Raises
        ------
        ConfigError
            If k is larger than the number of latents.
        """
        if settings.k > width:
            raise ConfigError(f"saes.*.k: {settings.k} latents kept of only {width}; lower k or raise expansion")
        return cls(settings.k, settings.auxk, settings.auxk_weight)

    def options(self) -> dict[str, Any]:
        """Return k."""
        return {"k": self.k}

    def dense(self, pre_activations: Tensor) -> Tensor:
        """Codes (n, width) from pre-activations (n, width)."""
        values, latents = pre_activations.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(pre_activations).scatter_(1, latents, values.relu_())

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        codes = self._largest(inputs, encoder, encoder_bias, self.k)
        latents, order = codes.latents.view(-1, self.k).sort(1)
        values = codes.values.view(-1, self.k).gather(1, order)
        return SparseCodes(latents.view(-1), values.view(-1), codes.offsets, codes.width).without_zeros()

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor) -> Step:
        """Loss and gradients of one batch; see `Variant.step`."""
        codes = self._largest(inputs, weights.encoder, weights.encoder_bias, self.k)
        error, gradients = sparse_pass(weights, inputs, inputs, codes)
        reconstruction = error.square().mean()
        auxiliary = torch.zeros_like(reconstruction)
        if self.auxk and self.auxk_weight and bool(dead.any()):
            auxiliary = self._learn_from_residual(weights, gradients, inputs, -error, dead.nonzero()[:, 0])
        losses = {"loss": reconstruction + auxiliary, "reconstruction": reconstruction, "auxk": auxiliary}
        return Step(codes, error, losses, gradients)

    def _learn_from_residual(
        self, weights: Weights, gradients: Weights, inputs: Tensor, residual: Tensor, dead: Tensor
    ) -> Tensor:
        """Add the auxiliary loss's gradients in the dead latents (n_dead,) to `gradients`; return the loss."""
        encoder, bias, decoder = (weights[i][dead] for i in range(3))
        codes = self._largest(inputs, encoder, bias, min(self.auxk, len(dead)))
        no_bias = torch.zeros_like(weights.decoder_bias)
        error, found = sparse_pass(Weights(encoder, bias, decoder, no_bias), inputs, residual, codes)
        # Relative to the residual, so that the weight means the same however good the reconstruction is.
        weight = self.auxk_weight / residual.square().mean()
        for gradient, part in zip(gradients[:3], found[:3], strict=True):
            gradient.index_add_(0, dead, part.mul_(weight))
        return weight * error.square().mean()

    def _largest(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, k: int) -> SparseCodes:
        """The k largest latents of each token, cut at zero: exactly k entries a token, in no order.

        Pre-activations exist for one block of tokens at a time, in a buffer that is used again.
        """
        n, width = len(inputs), len(encoder)
        values = inputs.new_empty(n, k)
        latents = torch.empty(n, k, dtype=torch.int64, device=inputs.device)
        if self._buffer.numel() < BLOCK * width or self._buffer.device != inputs.device:
            self._buffer = inputs.new_empty(BLOCK * width)
        for first in range(0, n, BLOCK):
            part = slice(first, first + BLOCK)
            block = self._buffer[: len(inputs[part]) * width].view(-1, width)
            torch.addmm(encoder_bias, inputs[part], encoder.T, out=block)
            torch.topk(block, k, dim=1, sorted=False, out=(values[part], latents[part]))
        offsets = torch.arange(0, n * k + 1, k, device=inputs.device)
        return SparseCodes(latents.view(-1), values.relu_().view(-1), offsets, width)
