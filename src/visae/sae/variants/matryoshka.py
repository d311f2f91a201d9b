"""Matryoshka: nested prefixes of the latents reconstruct on their own (Bussmann et al. 2025, arXiv 2503.17547)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visae.config.saes import growing
from visae.config.settings import MatryoshkaSettings
from visae.errors import ConfigError
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.sparse import SparseCodes, weighted_rows
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Step, Variant, Weights, checked_k, row_gradients

# Exponent of the Pareto distribution that prefixes are drawn from.
_PARETO = 0.5


class Matryoshka(Variant):
    """The mean over prefixes of the latents of the squared error of what that prefix alone reconstructs.

    So the first latents must be good on their own, and become general; later ones add detail, and need not absorb
    what belongs to a general one. The paper's loss, as a mean, so that the learning rate need not follow the
    number of prefixes.

    Parameters
    ----------
    rule
        Which latents are kept, and how dead ones are helped: `TopK` or `BatchTopK`.
    prefixes
        Lengths of the prefixes, growing, the last one the number of latents; empty: drawn anew in each step.
    drawn_prefixes
        How many are drawn.
    seed
        Of the drawing; with the step's number it decides which prefixes a step has.
    """

    name = "matryoshka"

    def __init__(
        self, rule: TopK | BatchTopK, prefixes: list[int] | None = None, drawn_prefixes: int = 5, seed: int = 0
    ) -> None:
        super().__init__()
        self.rule, self.prefixes, self.drawn_prefixes, self.seed = rule, prefixes or [], drawn_prefixes, seed

    @classmethod
    def from_settings(cls, settings: MatryoshkaSettings, width: int, d_model: int) -> Matryoshka:
        """Variant for training.

        Raises
        ------
        ConfigError
            If k is larger than the number of latents, or prefixes do not grow up to that number.
        """
        prefixes = settings.prefixes
        if prefixes and not (growing(prefixes) and prefixes[-1] == width):
            raise ConfigError(f"saes.*.prefixes: {prefixes}: allowed: numbers that grow from 1 or more to {width}")
        if settings.drawn_prefixes > width:
            raise ConfigError(f"saes.*.drawn_prefixes: {settings.drawn_prefixes}: allowed: 1 to {width}")
        shared = (checked_k(settings.k, width), settings.auxk, settings.auxk_weight)
        rule = TopK(*shared) if settings.over == "topk" else BatchTopK(*shared, settings.threshold_rate)
        return cls(rule, prefixes, settings.drawn_prefixes, settings.seed)

    @classmethod
    def from_options(cls, over: str, **options: Any) -> Matryoshka:  # type: ignore[override]
        """Variant as kept in config.json."""
        return cls({"topk": TopK, "batchtopk": BatchTopK}[over](**options))

    def options(self) -> dict[str, Any]:
        """Return the name of the rule and its own options."""
        return {"over": self.rule.name, **self.rule.options()}

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable."""
        return self.rule.dense(inputs, encoder, encoder_bias)

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        return self.rule.sparse(inputs, encoder, encoder_bias)

    def prefixes_of(self, number: int, width: int) -> list[int]:
        """Prefixes of step `number` (from 0), ascending, the last one all latents."""
        if self.prefixes:
            return self.prefixes
        lengths = np.arange(1, width)
        # P(length <= x) = 1 - (x + 1) ** -0.5: shorter prefixes more often.
        chances = lengths**-_PARETO - (lengths + 1) ** -_PARETO
        rng = np.random.default_rng([self.seed, number, 0x3A7])
        drawn = rng.choice(lengths, self.drawn_prefixes - 1, replace=False, p=chances / chances.sum())
        return [*sorted(drawn.tolist()), width]

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; see `Variant.step`.

        Each code is multiplied with its decoder row once: the reconstruction of a prefix is that of the one before
        plus what its further latents add.
        """
        target = inputs if target is None else target
        codes, buffers = self.rule.training_codes(weights, inputs, number)
        prefixes = self.prefixes_of(number, codes.width)
        groups = [(first, end, codes.between(first, end)) for first, end in pairwise([0, *prefixes])]
        errors, error = [], (weights.decoder_bias - target)
        for first, end, group in groups:
            error = error + weighted_rows(weights.decoder[first:end], group.latents, group.values, group.offsets)
            errors.append(error)
        reconstruction = torch.stack([part.square().mean() for part in errors]).mean()
        # Latents act on the reconstruction of their own prefix and of all longer ones.
        output_gradient, parts = torch.zeros_like(error), []
        for (first, end, group), part in zip(reversed(groups), reversed(errors), strict=True):
            output_gradient.add_(part, alpha=2 / (part.numel() * len(groups)))
            parts.append(row_gradients(weights.decoder[first:end], inputs, group, output_gradient))
        encoder, encoder_bias, decoder = (torch.cat(part[::-1]) for part in zip(*parts, strict=True))
        gradients = Weights(encoder, encoder_bias, decoder, output_gradient.sum(0))
        auxiliary = self.rule.auxk.add(weights, gradients, inputs, error, dead, self.rule.ranks)
        losses = {"loss": reconstruction + auxiliary, "reconstruction": reconstruction, "auxk": auxiliary}
        own_buffers = {f"rule.{name}": value for name, value in buffers.items()}
        return Step(codes, error, losses, gradients, buffers=own_buffers)
