"""How well an SAE reconstructs the tokens of a place, picture by picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.proof.hypotheses import Hypothesis
from visae.sae.proof.tokens import PointTokens
from visae.sae.variants.sparse import SparseCodes


@dataclass(frozen=True)
class Fit:
    """Sums of each picture under a hypothesis, float64 (n_pictures,) each.

    Attributes
    ----------
    squared, even
        Squared errors, and squared errors where no picture has more codes a token than all are allowed.
    deviation
        Squared deviations from the mean of all these tokens.
    codes, tokens
        Codes and tokens; a patch that stands for several counts as often.
    alone
        Latents that are active in this picture and in no other.
    silent
        Latents that are active in none, of `width`.
    bias
        Share of the squared errors that all tokens have in common: of tokens that an SAE was trained on it has learned
        their mean, of others it errs in one direction.
    """

    hypothesis: Hypothesis
    squared: np.ndarray
    even: np.ndarray
    deviation: np.ndarray
    codes: np.ndarray
    tokens: np.ndarray
    alone: np.ndarray
    silent: int
    width: int
    bias: float

    @property
    def worse(self) -> np.ndarray:
        """Squared errors that places are compared by: neither more codes nor a cut shall make a place look better."""
        return self.even if self.even.sum() > self.squared.sum() else self.squared

    @property
    def normalized_mse(self) -> float:
        """Squared errors over squared deviations from the mean."""
        return float(self.squared.sum() / self.deviation.sum())

    @property
    def l0(self) -> float:
        """Codes a token."""
        return float(self.codes.sum() / self.tokens.sum())


@torch.no_grad()
def fit(
    sae: SparseAutoencoder,
    hypothesis: Hypothesis,
    read: PointTokens,
    mean: Tensor,
    most_codes: float | None = None,
    order: Tensor | None = None,
) -> Fit:
    """Reconstruct the tokens of a place.

    Parameters
    ----------
    sae
        As it is under the hypothesis.
    mean
        (d_model,), of these tokens.
    most_codes
        Codes a token that a picture may have for `even`: of more, its largest count. None: as many as there are.
    order
        Permutation (d_model,) that the deviations from the mean are put in first: what is then left of the fit is
        what any SAE has of any activations.
    """
    device = sae.decoder_bias.device
    n = len(read.rows)
    sums = {name: np.zeros(n) for name in ("squared", "even", "deviation", "codes", "tokens")}
    pictures = torch.zeros(sae.width, dtype=torch.int64, device=device)
    last = torch.zeros_like(pictures)
    errors = torch.zeros(sae.d_model, dtype=torch.float64, device=device)
    mean = mean.to(device, torch.float32)
    for some, given, weights in read.parts(hypothesis.tokens, device):
        rows = given if order is None else mean + (given - mean)[..., order]
        flat = rows.flatten(0, 1)
        codes = sae.sparse_codes(flat)
        counts = codes.offsets.diff().view(rows.shape[:2])
        error = sae.decode(codes, like=flat).sub_(flat).view(rows.shape)
        errors += (error.double() * weights.double()[:, None]).sum((0, 1))
        squared = even = error.square().sum(2)
        if most_codes is not None and bool((counts.sum(1) > most_codes * rows.shape[1]).any()):
            fewer = _largest(codes, rows.shape[1], most_codes)
            even = sae.decode(fewer, like=flat).sub_(flat).view(rows.shape).square().sum(2)
        parts = (squared, even, (rows - mean).square().sum(2), counts, torch.ones_like(squared))
        for name, values in zip(sums, parts, strict=True):
            sums[name][some] = (values.double() @ weights.double()).cpu().numpy()
        which = codes.tokens // rows.shape[1]
        active = torch.unique(which * sae.width + codes.latents)
        latents = active % sae.width
        pictures += torch.bincount(latents, minlength=sae.width)
        last.scatter_reduce_(0, latents, active // sae.width + some.start, "amax")
    alone = torch.bincount(last[pictures == 1], minlength=n).cpu().numpy().astype(np.float64)
    silent = int((pictures == 0).sum())
    squared_sum = sums["squared"].sum()
    share = float(errors.square().sum() / (sums["tokens"].sum() * squared_sum)) if squared_sum > 0 else 0.0
    return Fit(hypothesis, **sums, alone=alone, silent=silent, width=sae.width, bias=_bias(share, n))


def _bias(share: float, n_pictures: int) -> float:
    """Share of squared errors that is their mean's, less what the mean of so many pictures has by chance."""
    return share - (1 - share) / max(1, n_pictures - 1)


def _largest(codes: SparseCodes, n_tokens: int, most_codes: float) -> SparseCodes:
    """Of each picture's codes the `most_codes` x `n_tokens` largest."""
    kept = int(most_codes * n_tokens)
    values = codes.values.clone()
    for first in range(0, codes.shape[0], n_tokens):
        entries = values[int(codes.offsets[first]) : int(codes.offsets[first + n_tokens])]
        if len(entries) > kept:
            least = entries.topk(len(entries) - kept, largest=False, sorted=False).indices
            entries[least] = 0
    return codes.with_values(values).without_zeros()
