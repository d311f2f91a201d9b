"""TopK over a decoder that never learns: random directions, and an encoder trained to use them (arXiv 2602.14111)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.config.settings import FrozenDecoderSettings
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Step, Weights, checked_k


class FrozenDecoder(TopK):
    """TopK whose decoder rows stay as they were drawn, evenly from the sphere.

    It is no SAE to use but one to compare with: what it reaches, an SAE owes to its encoder and to the number of its
    latents alone, and not to the directions that it has learned.
    """

    name = "frozen_decoder"
    drawn = 0

    @classmethod
    def from_settings(cls, settings: FrozenDecoderSettings, width: int, d_model: int) -> FrozenDecoder:  # type: ignore[override]
        """Variant for training; raises ConfigError if k is larger than the number of latents."""
        found = cls(checked_k(settings.k, width), settings.auxk, settings.auxk_weight)
        found.drawn = settings.drawn
        return found

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Draw the decoder's rows; encoders of SAEs that are no transcoders begin as the same rows."""
        if self.drawn:
            own_seed = np.random.SeedSequence([generator.initial_seed(), self.drawn]).generate_state(1)[0]
            generator = torch.Generator().manual_seed(int(own_seed))
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
