"""AuxK: latents that have been silent for long learn from what the others leave over (Gao et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from visae.sae.parallel import Ranks
from visae.sae.variants.selection import largest_per_token
from visae.sae.variants.variant import Weights, sparse_pass


class AuxK:
    """The auxiliary loss of arXiv 2406.04093, relative to the residual.

    The `latents` largest of the dead latents reconstruct the residual; their squared error, divided by the residual's
    square, is added with `weight`. So the weight means the same however good the reconstruction is.

    Parameters
    ----------
    latents
        Dead latents per token; 0 turns the loss off.
    weight
        Weight of the loss.
    """

    def __init__(self, latents: int, weight: float) -> None:
        self.latents, self.weight = latents, weight

    def add(
        self, weights: Weights, gradients: Weights, inputs: Tensor, error: Tensor, dead: Tensor, ranks: Ranks
    ) -> Tensor:
        """Add the loss's gradients in the dead latents (bool, (width,)) to `gradients`; return the loss."""
        if not (self.latents and self.weight):
            return error.new_zeros(())
        places = dead.nonzero()[:, 0]
        if not len(places):
            return error.new_zeros(())
        residual = -error
        encoder, bias, decoder = (weights[i][places] for i in range(3))
        codes = largest_per_token(inputs, encoder, bias, min(self.latents, len(places)))
        no_bias = torch.zeros_like(weights.decoder_bias)
        remaining, found = sparse_pass(Weights(encoder, bias, decoder, no_bias), inputs, residual, codes)
        weight = self.weight / ranks.mean(residual.square().mean())
        for gradient, part in zip(gradients[:3], found[:3], strict=True):
            gradient.index_add_(0, places, part.mul_(weight))
        return weight * remaining.square().mean()
