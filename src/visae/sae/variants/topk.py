"""TopK: the k largest latents of each token (Gao et al. 2024, arXiv 2406.04093)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visae.config.settings import TopKSettings
from visae.products import linear
from visae.sae.variants.auxk import AuxK
from visae.sae.variants.selection import largest_per_token
from visae.sae.variants.sparse import SparseCodes
from visae.sae.variants.variant import Step, Variant, Weights, checked_k, sparse_pass


class TopK(Variant):
    """Keep the k largest pre-activations of each token, cut at zero.

    Latents that have been silent for long learn from what the others leave over: see `AuxK`.

    Parameters
    ----------
    k
        Latents kept per token.
    auxk, auxk_weight
        Dead latents per token, and the weight of their loss.
    """

    name = "topk"

    def __init__(self, k: int, auxk: int = 0, auxk_weight: float = 0.0) -> None:
        super().__init__()
        self.k, self.auxk = k, AuxK(auxk, auxk_weight)

    @classmethod
    def from_settings(cls, settings: TopKSettings, width: int, d_model: int) -> TopK:
        """Variant for training; raises ConfigError if k is larger than the number of latents."""
        return cls(checked_k(settings.k, width), settings.auxk, settings.auxk_weight)

    def options(self) -> dict[str, Any]:
        """Return k."""
        return {"k": self.k}

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable."""
        pre_activations = linear(inputs, encoder, encoder_bias)
        values, latents = pre_activations.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(pre_activations).scatter_(1, latents, values.relu_())

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        codes = largest_per_token(inputs, encoder, encoder_bias, self.k)
        latents, order = codes.latents.view(-1, self.k).sort(1)
        values = codes.values.view(-1, self.k).gather(1, order)
        return SparseCodes(latents.view(-1), values.view(-1), codes.offsets, codes.width).without_zeros()

    def training_codes(self, weights: Weights, inputs: Tensor, number: int) -> tuple[SparseCodes, dict[str, Tensor]]:
        """Codes of a batch, entries with value zero among them, and new values of the buffers (none)."""
        return largest_per_token(inputs, weights.encoder, weights.encoder_bias, self.k), {}

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; see `Variant.step`."""
        target = inputs if target is None else target
        codes, buffers = self.training_codes(weights, inputs, number)
        error, gradients = sparse_pass(weights, inputs, target, codes)
        reconstruction = error.square().mean()
        auxiliary = self.auxk.add(weights, gradients, inputs, error, dead, self.ranks)
        losses = {"loss": reconstruction + auxiliary, "reconstruction": reconstruction, "auxk": auxiliary}
        return Step(codes, error, losses, gradients, buffers=buffers)
