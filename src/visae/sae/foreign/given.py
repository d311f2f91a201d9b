"""A sparse autoencoder made of weights from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from visae.config.saes import Normalization
from visae.errors import ModelError
from visae.notices import Notice
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.variants.variant import Variant, Weights
from visae.weights import check_names, check_shapes, check_values

# How far a norm may be from 1: half precision, and an optimizer's step after the last projection.
_UNIT = 2e-2
# How much better encoder and decoder rows must go together the other way round: in training they stay alike.
_ALIKE = 0.3


@dataclass(frozen=True)
class Lost:
    """What a file has not kept, and data can give again.

    Attributes
    ----------
    normalization
        What activations were divided by after their mean was subtracted: the root of their mean squared deviation,
        or their deviations' mean norm over the root of d_model. None where nothing is lost.
    codes_per_token
        Codes that BatchTopK keeps of a token on average, whose threshold is to be found; None where it is known.
    """

    normalization: Literal["deviation", "norm"] | None = None
    codes_per_token: int | None = None


class Given(NamedTuple):
    """An SAE from elsewhere, what a person should know of it, and what its file has lost."""

    sae: SparseAutoencoder
    notices: list[Notice]
    lost: Lost = Lost()


@dataclass(frozen=True)
class Parts:
    """Weights as a project has them, in double precision.

    Parameters
    ----------
    encoder, bias, decoder, decoder_bias
        (width, d_model), (width,), (width, d_target), (d_target,).
    is_subtracted
        Whether the decoder's bias is subtracted from what is encoded.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    is_subtracted: bool

    @property
    def shift(self) -> Tensor:
        """What subtracting the decoder's bias takes off each pre-activation, (width,)."""
        return self.encoder @ self.decoder_bias if self.is_subtracted else torch.zeros_like(self.bias)

    @property
    def weights(self) -> Weights:
        """The same function of activations from which nothing is subtracted."""
        return Weights(self.encoder, self.bias - self.shift, self.decoder, self.decoder_bias)

    def of_unit_rows(self) -> Parts:
        """Decoder rows brought to unit norm; codes grow by what rows lose."""
        norms = row_norms(self.decoder).unsqueeze(1)
        bias = self.bias * norms[:, 0]
        return replace(self, encoder=self.encoder * norms, bias=bias, decoder=self.decoder / norms)


def sae_of(
    variant: Variant,
    weights: Weights,
    d_target: int | None = None,
    normalization: Normalization = "none",
    skip: Tensor | None = None,
) -> SparseAutoencoder:
    """SAE with given weights, which takes activations as they are, or with a normalization that has no numbers."""
    width, d_model = weights.encoder.shape
    has_skip = skip is not None and bool(skip.any())
    sae = SparseAutoencoder(d_model, width, variant, d_target, None, normalization, has_skip)
    with torch.no_grad():
        if skip is not None and sae.skip is not None:
            sae.skip.copy_(skip)
        for own, given in zip(sae.weights, weights, strict=True):
            if own.shape != given.shape:
                raise ModelError(f"weights of shape {list(given.shape)} where {list(own.shape)} belong")
            own.copy_(given)
    return sae.eval().requires_grad_(False)


def filled(parameter: nn.Parameter | Tensor, values: Tensor) -> None:
    """Give a variant's own parameter or buffer its values."""
    parameter.detach().copy_(values.to(parameter.dtype))


def checked(
    contents: Contents, shapes: dict[str, tuple[int, ...]], optional: Iterable[str] = (), *, of: str
) -> dict[str, Tensor]:
    """Tensors in double precision; whatever they should not be is refused by name.

    Parameters
    ----------
    shapes
        Of all tensors that there may be, by name.
    optional
        Names of those that may be missing.

    Raises
    ------
    ModelError
        If any is missing, unknown, no number, or of another shape.
    """
    optional = set(optional) & shapes.keys()
    check_names(contents.path, contents.tensors, shapes.keys() - optional, optional, of=of)
    check_values(contents.path, contents.tensors)
    check_shapes(contents.path, contents.tensors, shapes)
    return {name: tensor.double() for name, tensor in contents.tensors.items()}


def sizes(contents: Contents, bias: str, matrix: str, of: str) -> tuple[int, int]:
    """Width and d_model by the encoder's bias (width,) and matrix, whichever way round that is.

    Raises
    ------
    ModelError
        If either is missing, or the matrix has no rows or columns for the bias.
    """
    check_names(
        contents.path,
        {name: contents.tensors[name] for name in (bias, matrix) if name in contents.tensors},
        (bias, matrix),
        of=of,
    )
    width, n_values = contents.tensors[bias].numel(), contents.tensors[matrix].numel()
    if contents.tensors[matrix].dim() != 2 or width == 0 or n_values % width:
        shape = list(contents.tensors[matrix].shape)
        raise ModelError(
            f"{contents.path}: {matrix} has shape {shape}, and {bias} has {width} values: they do not belong together; "
            "copy the file again from where it was made"
        )
    return width, n_values // width


def refuse_other_sizes(contents: Contents, stated: dict[str, object], found: dict[str, int]) -> None:
    """Refuse settings that state other sizes than the tensors have: one of the two belongs to another SAE.

    Raises
    ------
    ModelError
        If any does.
    """
    for key, value in found.items():
        if stated.get(key) not in (None, value):
            raise ModelError(
                f"{contents.said_in}: {key}: {stated[key]!r}, and the tensors of {contents.path} have {value}: "
                "these are files of two SAEs; put together what belongs together"
            )


def oriented(where: Path, parts: Parts, unsaid: Unsaid) -> Parts:
    """Parts with the right matrices turned round, as said; square ones that look transposed are refused.

    Raises
    ------
    ModelError
        If one looks transposed and nothing is said of it.
    """
    if unsaid.transposed not in (None, "none"):
        if parts.encoder.shape[0] != parts.encoder.shape[1] or parts.encoder.shape != parts.decoder.shape:
            raise ModelError(f"{where}: --transposed {unsaid.transposed}: the matrices are not square; leave it out")
        turned_encoder = parts.encoder.T if unsaid.transposed != "decoder" else parts.encoder
        turned_decoder = parts.decoder.T if unsaid.transposed != "encoder" else parts.decoder
        return replace(parts, encoder=turned_encoder, decoder=turned_decoder)
    if unsaid.transposed is None and (found := _looks_transposed(parts)):
        which, why = found
        choice = f"--transposed {which}" if which != "one" else "--transposed encoder, or --transposed decoder,"
        raise ModelError(
            f"{where}: the matrices are square, and {why}. {choice} takes it the other way round; "
            "--transposed none takes all as they are"
        )
    return parts


def _looks_transposed(parts: Parts) -> tuple[str, str] | None:
    """Which of two square matrices looks transposed, and why."""
    encoder, decoder = parts.encoder, parts.decoder
    if encoder.shape != decoder.shape or encoder.shape[0] != encoder.shape[1]:
        return None
    has_rows, has_columns = has_unit_rows(decoder), has_unit_rows(decoder.T)
    are_alike = _alikeness(encoder, decoder.T) - _alikeness(encoder, decoder) < _ALIKE
    if has_columns and not has_rows:
        text = "the decoder looks transposed: its columns have unit norm where rows do in a trained SAE"
        if are_alike and _alikeness(encoder, decoder) > _ALIKE:
            return "both", f"{text}; the encoder goes together with it as it is, so it looks transposed as well"
        return "decoder", text
    if not are_alike:
        text = "encoder and decoder rows, which stay alike in training, are alike only if one of the two is transposed"
        return ("encoder", f"{text}, and the decoder's rows have unit norm") if has_rows else ("one", text)
    return None


def _alikeness(left: Tensor, right: Tensor) -> float:
    """Mean cosine of the rows (n, d) of two matrices."""
    return float(torch.nn.functional.cosine_similarity(left, right, dim=1).mean())


def row_norms(decoder: Tensor) -> Tensor:
    """Norms (width,) by which rows (width, d) are divided to have unit norm; 1 for a row of zeros."""
    norms = torch.linalg.vector_norm(decoder, dim=1)
    return torch.where(norms > 0, norms, torch.ones_like(norms))


def has_unit_rows(matrix: Tensor) -> bool:
    """Whether every row (n, d) has unit norm, as far as an optimizer and half precision keep it."""
    return bool((row_norms(matrix) - 1).abs().max() < _UNIT)


def renormalized(
    sae: SparseAutoencoder, normalization: Normalization, mean: Tensor | None = None, scale: Tensor | None = None
) -> SparseAutoencoder:
    """The same weights on activations that are normalized first.

    Parameters
    ----------
    mean, scale
        (d_model,), and () or (d_model,): of `scale` and `per_dimension`.
    """
    weights, target = sae.weights, sae.d_target if sae.is_transcoder else None
    made = sae_of(sae.variant, weights, target, normalization, sae.skip)
    made.place = sae.place
    if mean is not None and scale is not None:
        made.mean.copy_(mean)
        made.scale.copy_(scale)
    return made
