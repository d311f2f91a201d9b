"""BatchTopK: the largest latents of a whole batch (Bussmann et al. 2024, arXiv 2412.06410)."""

from __future__ import annotations

import torch
from torch import Tensor

from visae.config.settings import BatchTopKSettings
from visae.products import linear
from visae.sae.variants.selection import largest_of_batch, selected
from visae.sae.variants.sparse import SparseCodes
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Weights, checked_k

# Share of the running threshold that a batch's own is expected to be above: what is looked at, never the result.
_LIKELY = 0.8


class BatchTopK(TopK):
    """Train on the k x n largest positive pre-activations of n tokens; afterwards keep those above a threshold.

    So an easy token may have few codes and a hard one many. The threshold is the running mean over steps of the
    smallest value kept: it lets a token be encoded without a batch around it.

    Parameters
    ----------
    k
        Latents kept per token on average.
    auxk, auxk_weight
        As of `TopK`.
    threshold_rate
        Smallest weight of a step in the running mean.

    Attributes
    ----------
    threshold
        (), the running mean so far.
    """

    name = "batchtopk"
    threshold: Tensor

    def __init__(self, k: int, auxk: int = 0, auxk_weight: float = 0.0, threshold_rate: float = 0.05) -> None:
        super().__init__(k, auxk, auxk_weight)
        self.threshold_rate = threshold_rate
        self.register_buffer("threshold", torch.zeros(()))

    @classmethod
    def from_settings(cls, settings: BatchTopKSettings, width: int, d_model: int) -> BatchTopK:  # type: ignore[override]
        """Variant for training; raises ConfigError if k is larger than the number of latents."""
        return cls(checked_k(settings.k, width), settings.auxk, settings.auxk_weight, settings.threshold_rate)

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable."""
        pre_activations = linear(inputs, encoder, encoder_bias)
        return pre_activations * (pre_activations > self.threshold)

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        return selected(inputs, encoder, encoder_bias, self.threshold)

    def training_codes(self, weights: Weights, inputs: Tensor, number: int) -> tuple[SparseCodes, dict[str, Tensor]]:
        """Codes of a batch, and the new running threshold."""
        wanted = self.k * len(inputs) * self.ranks.count
        # One process may have all that are kept, so there a guess of what is enough would mostly be wrong.
        guess = _LIKELY * float(self.threshold) if self.ranks.count == 1 else 0.0
        codes = largest_of_batch(inputs, weights.encoder, weights.encoder_bias, wanted, guess)
        found = self.ranks.gathered(codes.values)
        if not len(found):
            return codes, {}
        if len(found) > wanted:
            least = found.topk(wanted, sorted=False).values.min()
            codes, found = codes.with_values(codes.values * (codes.values >= least)).without_zeros(), least
        # The first steps count alike: otherwise the threshold would start near zero and take long to rise.
        rate = max(self.threshold_rate, 1 / (number + 1))
        return codes, {"threshold": self.threshold.lerp(found.min(), rate)}
