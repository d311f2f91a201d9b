"""How good a sparse autoencoder is on given activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visae.sae.autoencoder import SparseAutoencoder

# A latent active on more than this share of the tokens counts as dense: it says little about any of them.
DENSE_ABOVE = 0.1
_CHUNK = 4096


@dataclass(frozen=True)
class Quality:
    """Reconstruction and sparsity on n_tokens activations.

    Attributes
    ----------
    normalized_mse
        Sum of squared errors over the sum of squared deviations from the mean of these same activations:
        1 is what the mean alone reaches.
    explained_variance
        1 minus the variance of the error (about its own mean) over the variance of the activations.
    l0, l1
        Mean number and mean sum of codes a token; codes are in normalized units.
    silent_share
        Share of latents that no token has.
    dense_share
        Share of latents that more than a tenth of the tokens have.
    """

    normalized_mse: float
    explained_variance: float
    l0: float
    l1: float
    silent_share: float
    dense_share: float
    n_tokens: int


@torch.no_grad()
def quality(sae: SparseAutoencoder, activations: Tensor, target: Tensor | None = None) -> Quality:
    """Measure a sparse autoencoder on raw activations (n, d_model), in chunks on its own device.

    Parameters
    ----------
    target
        (n, d_target), what a transcoder shall give; the activations themselves where it is None.
    """
    target = activations if target is None else target
    device = sae.decoder_bias.device
    n_tokens = len(activations)
    mean = target.double().mean(0).to(device)
    deviation, squared = 0.0, 0.0
    error_sum = torch.zeros(sae.d_target, dtype=torch.float64, device=device)
    fired = torch.zeros(sae.width, dtype=torch.int64, device=device)
    l1 = 0.0
    for chunk, wanted in zip(activations.split(_CHUNK), target.split(_CHUNK), strict=True):
        rows = wanted.to(device)
        inputs = chunk.to(device)
        error = sae.decode(codes := sae.sparse_codes(inputs), like=inputs).sub_(rows).double()
        squared += float(error.square().sum())
        error_sum += error.sum(0)
        deviation += float((rows - mean).square().sum())
        fired += torch.bincount(codes.latents, minlength=sae.width)
        l1 += float(codes.values.double().sum())
    about_mean = squared - float(error_sum.square().sum()) / n_tokens
    return Quality(
        normalized_mse=squared / deviation,
        explained_variance=1 - about_mean / deviation,
        l0=float(fired.sum()) / n_tokens,
        l1=l1 / n_tokens,
        silent_share=float((fired == 0).double().mean()),
        dense_share=float((fired > DENSE_ABOVE * n_tokens).double().mean()),
        n_tokens=n_tokens,
    )
