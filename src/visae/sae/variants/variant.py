"""What every variant of sparse autoencoder offers: a code rule, and one training step with its gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from visae.errors import ConfigError
from visae.products import linear
from visae.sae.parallel import ALONE, Ranks
from visae.sae.variants.sparse import SparseCodes, by_latent, value_gradients, weighted_rows

# Latents whose products with a sample exist at once.
_ROWS_AT_ONCE = 512
# Codes that are put in the order of latents at once: that takes several times their own memory.
_CODES_AT_ONCE = 1 << 20


class Weights(NamedTuple):
    """Weights of a sparse autoencoder, or their gradients, in normalized units.

    Shapes: encoder (width, d_model), encoder_bias (width,), decoder (width, d_target), decoder_bias (d_target,).
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
        (n, d_target), reconstruction minus target.
    losses
        `loss` and its parts, scalars.
    gradients
        Gradient of `loss` in each weight.
    own_gradients
        Gradient of `loss` in each of the variant's own parameters, in the order of `variant.parameters()`.
    buffers
        New values of the variant's buffers by name, taken over when the step is made.
    """

    codes: SparseCodes
    error: Tensor
    losses: dict[str, Tensor]
    gradients: Weights
    own_gradients: tuple[Tensor, ...] = ()
    buffers: dict[str, Tensor] = field(default_factory=dict)

    @property
    def all_gradients(self) -> tuple[Tensor, ...]:
        """Gradients in the order of the SAE's parameters."""
        return (*self.gradients, *self.own_gradients)


class Variant(nn.Module):
    """A code rule with its loss.

    Parameters beside the four weights, and buffers, are those of the module: they are trained, kept in checkpoints
    and saved with the SAE.
    """

    name: ClassVar[str]
    # Who else has parts of the batches that `step` is given: what is not a mean over tokens must be asked of all.
    ranks: Ranks = ALONE

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """Variant as kept in config.json."""
        return cls(**options)

    def options(self) -> dict[str, Any]:
        """Return what `from_options` makes the code rule of again; the weights are all that it needs beside it."""
        return {}

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model); differentiable."""
        raise NotImplementedError

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        raise NotImplementedError

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch of normalized inputs (n, d_model); changes nothing.

        Parameters
        ----------
        number
            Number of the step, from 0.
        dead
            bool (width,), latents that have been silent for long.
        target
            (n, d_target), what the codes shall give, normalized; the inputs where it is None.
        """
        raise NotImplementedError

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Fit initial weights and own parameters, in place, to a sample of normalized inputs (n, d_model).

        `target` is a transcoder's (n, d_target), None where it is the inputs.
        """

    def scale(self, weights: Weights, factors: Tensor) -> None:
        """Make each latent's codes `factors` (width,) times as large, in place."""
        weights.encoder.mul_(factors.unsqueeze(1))
        weights.encoder_bias.mul_(factors)

    def shift(self, weights: Weights, middle: Tensor) -> None:
        """Let inputs be `middle` (d_model,) larger than those that the weights were fitted to, in place."""
        weights.encoder_bias.sub_(weights.encoder @ middle)

    def project(self, weights: Weights) -> None:
        """Bring the weights back to where they belong after an optimizer's step, in place: unit decoder rows."""
        weights.decoder.div_(torch.linalg.vector_norm(weights.decoder, dim=1, keepdim=True))


class SparsePass(NamedTuple):
    """Error of a batch's reconstruction (n, d_target), and the gradients that it gives."""

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
        (n, d_model) and (n, d_target): what the codes were computed from, and what they shall give.
    codes
        Entries with value zero (cut by the ReLU) pass no gradient to the encoder.
    """
    error = reconstruction_error(weights, target, codes)
    output_gradient = error * (2 / error.numel())
    parts = row_gradients(weights.decoder, inputs, codes, output_gradient, penalty)
    return SparsePass(error, Weights(*parts, output_gradient.sum(0)))


def reconstruction_error(weights: Weights, target: Tensor, codes: SparseCodes) -> Tensor:
    """Reconstruction by the codes minus target, (n, d_target)."""
    error = weighted_rows(weights.decoder, codes.latents, codes.values, codes.offsets)
    return error.add_(weights.decoder_bias).sub_(target)


def row_gradients(
    decoder: Tensor, inputs: Tensor, codes: SparseCodes, output_gradient: Tensor, penalty: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in encoder, encoder bias and decoder of ReLU codes, given that in the output (n, d_target)."""
    total: tuple[Tensor, Tensor, Tensor] | None = None
    for tokens, part in codes.parts(_CODES_AT_ONCE):
        code_gradient = value_gradients(part, output_gradient[tokens], decoder)
        code_gradient.add_(penalty / len(inputs)).mul_(part.values > 0)
        sorted_codes = by_latent(part)
        found = (
            sorted_codes.row_gradients(code_gradient, inputs[tokens]),
            sorted_codes.sums(code_gradient),
            sorted_codes.row_gradients(part.values, output_gradient[tokens]),
        )
        if total is None:
            total = found
        else:
            for gradient, more in zip(total, found, strict=True):
                gradient.add_(more)
    assert total is not None
    return total


def without_parallel(gradient: Tensor, rows: Tensor) -> Tensor:
    """Remove from each row of a gradient the part along the unit-norm row that it belongs to, in place."""
    along = torch.linalg.vecdot(gradient, rows).unsqueeze(1)
    return gradient.addcmul_(along, rows, value=-1)


def warmed_up(weight: float, steps: int, number: int) -> float:
    """Weight of a penalty in step `number` (from 0) when it grows linearly over `steps`."""
    return weight * min(1.0, (number + 1) / max(1, steps))


def upper_quantiles(inputs: Tensor, rows: Tensor, share: float) -> Tensor:
    """For each of `rows` (width, d) the value that its product with about a share of inputs (n, d) is above, (width,).

    Few rows at a time: the product of all would take more memory than a training step.
    """
    rank = max(1, round((1 - share) * len(inputs)))
    return torch.cat([linear(inputs, part).kthvalue(rank, dim=0).values for part in rows.split(_ROWS_AT_ONCE)])


def checked_k(k: int, width: int) -> int:
    """Return k.

    Raises
    ------
    ConfigError
        If k is larger than the number of latents.
    """
    if k > width:
        raise ConfigError(
            f"saes.*.k: {k} latents kept of only {width}; allowed: 1 to {width}; lower k or raise expansion"
        )
    return k
