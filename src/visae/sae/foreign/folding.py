"""An SAE with its normalization folded into its weights: for formats of which the code takes raw activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.variants.gated import Gated
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.variant import Variant


@dataclass(frozen=True)
class Folded:
    """Weights of raw units, in double precision: a mean far from zero would otherwise cost the biases digits.

    Attributes
    ----------
    encoder, bias
        (width, d_model) and (width,): pre-activations of a raw x are encoder x + bias. Under `per_token` what goes in
        is each token less its mean and over its deviation.
    decoder, decoder_bias
        (width, d_target) and (d_target,), of raw units; under `per_token` of normalized ones.
    shift
        (width,), what the encoder makes of the mean: bias is that of normalized activations less it.
    rule
        The code rule; of `matryoshka` the one that it is over, since prefixes matter in training alone.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    shift: Tensor
    rule: Variant

    def biased(self, offset: Tensor) -> Tensor:
        """Bias (width,) for formats that subtract an offset (d_model,) from what goes in."""
        return self.bias + self.encoder @ offset

    def gate(self) -> tuple[Tensor, Tensor]:
        """Logarithms of the factors (width,) of a gated SAE's magnitudes, and their biases for raw activations."""
        assert isinstance(self.rule, Gated)
        log_scale, bias = self.rule.log_scale.detach().double(), self.rule.magnitude_bias.detach().double()
        return log_scale, bias - log_scale.exp() * self.shift


def folded(sae: SparseAutoencoder, raw: bool = True) -> Folded:
    """Fold mean and scale into the weights; codes stay as they are, in visae's units.

    Parameters
    ----------
    raw
        Whether they are to take raw activations; else they are left as they are, for normalized ones.
    """
    encoder, shift = sae.weights.encoder.double(), torch.zeros(sae.width, dtype=torch.float64)
    decoder, decoder_bias = sae.weights.decoder.double(), sae.weights.decoder_bias.double()
    if raw and sae.centres:
        encoder = encoder / sae.scale.double()
        shift = encoder @ sae.mean.double()
    if raw and not sae.needs_like:
        scale = sae.output_scale_of(None).double()
        decoder, decoder_bias = decoder * scale, decoder_bias * scale + sae.output_mean_of(None).double()
    bias = sae.weights.encoder_bias.double() - shift
    rule = sae.variant.rule if isinstance(sae.variant, Matryoshka) else sae.variant
    return Folded(encoder, bias, decoder, decoder_bias, shift, rule)


def as_float(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as files hold them: single precision, contiguous, on the CPU; whole numbers as they are."""
    single = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return {name: tensor.cpu().contiguous() for name, tensor in single.items()}


def refuse_beyond(sae: SparseAutoencoder, project: str, *, per_token: bool = False, transcoders: bool = False) -> None:
    """Refuse what a project's files cannot say, by its key.

    Parameters
    ----------
    per_token, transcoders
        Whether it has them.

    Raises
    ------
    ModelError
        If the SAE clamps, or has what the project has not.
    """
    if sae.skip is not None:
        raise ModelError(f"skip: {project} would leave out what goes past the codes; export as hub, which keeps it")
    if sae.clamp is not None:
        raise ModelError(
            f"clamp: {sae.clamp:g}: {project} has no clamping of what goes in; train with clamp left out, or export as "
            "hub, which keeps it"
        )
    if sae.normalization == "per_token" and not per_token:
        raise ModelError(
            f"normalization: per_token: {project} does not standardize each token; export as saelens or hub, or train "
            "with another normalization"
        )
    if sae.is_transcoder and not transcoders:
        raise ModelError(
            f"d_target: {sae.d_target}: {project} has no transcoders; export as hub, or relu and jumprelu as saelens"
        )
