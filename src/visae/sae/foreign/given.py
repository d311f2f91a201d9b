"""A sparse autoencoder made of weights from elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visae.errors import ModelError
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.variant import Variant, Weights


def sae_of(variant: Variant, weights: Weights, d_target: int | None = None) -> SparseAutoencoder:
    """SAE with given weights; it takes activations as they are, with mean 0 and scale 1."""
    width, d_model = weights.encoder.shape
    sae = SparseAutoencoder(d_model, width, variant, d_target)
    with torch.no_grad():
        for own, given in zip(sae.weights, weights, strict=True):
            if own.shape != given.shape:
                raise ModelError(f"weights of shape {list(given.shape)} where {list(own.shape)} belong")
            own.copy_(given)
    return sae.eval().requires_grad_(False)


def filled(parameter: nn.Parameter | Tensor, values: Tensor) -> None:
    """Give a variant's own parameter or buffer its values."""
    parameter.detach().copy_(values.to(parameter.dtype))


def row_norms(decoder: Tensor) -> Tensor:
    """Norms (width,) by which rows (width, d) are divided to have unit norm; 1 for a row of zeros."""
    norms = torch.linalg.vector_norm(decoder, dim=1)
    return torch.where(norms > 0, norms, torch.ones_like(norms))
