"""A sparse autoencoder made of weights from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from visae.errors import ModelError
from visae.notices import Notice
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.variants.variant import Variant, Weights

# How far a norm may be from 1: half precision, and an optimizer's step after the last projection.
_UNIT = 2e-2


class Given(NamedTuple):
    """An SAE from elsewhere, and what a person should know of it."""

    sae: SparseAutoencoder
    notices: list[Notice]


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


def has_unit_rows(matrix: Tensor) -> bool:
    """Whether every row (n, d) has unit norm, as far as an optimizer and half precision keep it."""
    return bool((row_norms(matrix) - 1).abs().max() < _UNIT)


def looks_transposed(where: Path, decoder: Tensor) -> list[Notice]:
    """Warn of a square decoder (d, d) whose columns have unit norm and whose rows do not."""
    if decoder.shape[0] != decoder.shape[1]:
        return []
    if has_unit_rows(decoder) or not has_unit_rows(decoder.T):
        return []
    text = "W_dec is square, and its columns have unit norm where rows do in a trained SAE: it looks transposed"
    return [Notice("warning", f"{where}: {text}; if it is, save it the other way round")]
