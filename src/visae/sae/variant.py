"""What every variant of sparse autoencoder offers: a code rule, and one training step with its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from visae.sae.sparse import SparseCodes, by_latent, value_gradients, weighted_rows

# Tokens whose pre-activations exist at once.
BLOCK = 512


class Weights(NamedTuple):
    """Weights of a sparse autoencoder, or their gradients, in normalized units.

    Shapes: encoder and decoder (width, d_model), encoder_bias (width,), decoder_bias (d_model,).
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor


@dataclass(frozen=True)
class Step:
    """What one training step found.

    Parameters
    ----------
    codes
        Codes of the batch.
    error
        (n, d_model), reconstruction minus input.
    losses
        `loss` and its parts, scalars.
    gradients
        Gradient of `loss` in each weight.
    """

    codes: SparseCodes
    error: Tensor
    losses: dict[str, Tensor]
    gradients: Weights


class Variant(Protocol):
    """A code rule with its loss."""

    name: str

    def options(self) -> dict[str, Any]:
        """Return what the code rule needs besides the weights, as kept in config.json."""
        ...

    def dense(self, pre_activations: Tensor) -> Tensor:
        """Codes (n, width) from pre-activations (n, width)."""
        ...

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        ...

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor) -> Step:
        """Loss and gradients of one batch of normalized inputs (n, d_model).

        Parameters
        ----------
        number
            Number of the step, from 0.
        dead
            bool (width,), latents that have been silent for long.
        """
        ...


class SparsePass(NamedTuple):
    """Error of a batch's reconstruction (n, d_model), and the gradients that it gives."""

    error: Tensor
    gradients: Weights


def sparse_pass(
    weights: Weights, inputs: Tensor, target: Tensor, codes: SparseCodes, penalty: float = 0.0
) -> SparsePass:
    """Gradients of mean squared error (over all elements) plus `penalty` times the sum of codes a token.

    Only rows of latents that some token has are touched, and nothing of shape (n, width) is made.

    Parameters
    ----------
    inputs, target
        (n, d_model): what the codes were computed from, and what they shall give.
    codes
        Entries with value zero (cut by the ReLU) pass no gradient to the encoder.
    """
    error = weighted_rows(weights.decoder, codes.latents, codes.values, codes.offsets)
    error.add_(weights.decoder_bias).sub_(target)
    output_gradient = error * (2 / error.numel())
    code_gradient = value_gradients(codes, output_gradient, weights.decoder)
    code_gradient.add_(penalty / len(inputs)).mul_(codes.values > 0)
    sorted_codes = by_latent(codes)
    gradients = Weights(
        encoder=sorted_codes.row_gradients(code_gradient, inputs),
        encoder_bias=sorted_codes.sums(code_gradient),
        decoder=sorted_codes.row_gradients(codes.values, output_gradient),
        decoder_bias=output_gradient.sum(0),
    )
    return SparsePass(error, gradients)


def without_parallel(gradient: Tensor, rows: Tensor) -> Tensor:
    """Remove from each row of a gradient the part along the unit-norm row that it belongs to, in place."""
    along = torch.linalg.vecdot(gradient, rows).unsqueeze(1)
    return gradient.addcmul_(along, rows, value=-1)
