"""TopK over a decoder that never learns: random directions, and an encoder trained to use them (arXiv 2602.14111)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Step, Weights


class FrozenDecoder(TopK):
    """TopK whose decoder rows stay as they were drawn, evenly from the sphere.

    It is no SAE to use but one to compare with: what it reaches, an SAE owes to its encoder and to the number of its
    latents alone, and not to the directions that it has learned.
    """

    name = "frozen_decoder"

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Draw the decoder's rows; encoders of SAEs that are no transcoders begin as the same rows."""
        drawn = torch.randn(weights.decoder.shape, generator=generator)
        weights.decoder.copy_(normalize(drawn))
        if target is None:
            weights.encoder.copy_(weights.decoder)

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; none in the decoder's rows."""
        found = super().step(weights, inputs, number, dead, target)
        found.gradients.decoder.zero_()
        return found

    def project(self, weights: Weights) -> None:
        """Leave the rows alone, to the last bit."""
