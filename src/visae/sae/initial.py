"""Where training starts: normalization and initial weights."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.config.settings import AnySae
from visae.errors import TrainingError
from visae.sae.autoencoder import VARIANTS, SparseAutoencoder
from visae.sae.variant import Variant

# Share of the tokens that each ReLU latent starts out active on, and the tokens that this is measured on.
_RELU_ACTIVE = 0.05
_CHUNK = 8192


def initial_sae(settings: AnySae, sample: Tensor, seed: int) -> SparseAutoencoder:
    """Untrained SAE on a sample's normalization: unit decoder rows, the encoder their transpose.

    Activations are centred before the encoder, so a decoder bias of zero is the data's mean. Encoder biases
    are zero for TopK. For ReLU they let each latent be active on a small share of the tokens: with half of
    all latents active, the first reconstructions are far too large, and a short training is spent on that.

    Parameters
    ----------
    sample
        (n, d_model) raw activations.
    seed
        Of the random rows.

    Raises
    ------
    TrainingError
        If all activations are the same.
    """
    mean, scale = normalization(sample)
    sae = empty_sae(settings, sample.shape[1])
    # A stream of its own: the data's order, or made data, must not share numbers with the weights.
    own_seed = int(np.random.SeedSequence([seed, 0x5AE]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(own_seed)
    rows = torch.randn(sae.width, sae.d_model, generator=generator)
    with torch.no_grad():
        sae.decoder_weight.copy_(normalize(rows))
        sae.encoder_weight.copy_(sae.decoder_weight)
        if settings.variant == "relu":
            inputs = ((sample - mean) / scale)[torch.randperm(len(sample), generator=generator)[:_CHUNK]]
            sae.encoder_bias.copy_(-upper_quantile(inputs @ sae.encoder_weight.T, _RELU_ACTIVE))
        sae.mean.copy_(mean)
        sae.scale.copy_(scale)
    return sae


def empty_sae(settings: AnySae, d_model: int) -> SparseAutoencoder:
    """SAE of the right shape, all weights zero."""
    width = settings.expansion * d_model
    variant = cast(Variant, cast(Any, VARIANTS[settings.variant]).from_settings(settings, width))
    return SparseAutoencoder(d_model, width, variant)


def normalization(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d_model,), and the scale () at which the centred sample has a mean squared norm of d_model.

    Raises
    ------
    TrainingError
        If all activations are the same.
    """
    mean = sample.mean(0, dtype=torch.float64)
    squares = sum(float((part.double() - mean).square().sum()) for part in sample.split(_CHUNK))
    scale = torch.tensor((squares / sample.numel()) ** 0.5)
    if not float(scale) > 1e-6 * float(mean.abs().max()):
        raise TrainingError("all activations are the same; nothing can be learnt from them")
    return mean.float(), scale.float()


def upper_quantile(values: Tensor, share: float) -> Tensor:
    """Value (m,) that about a share of each column of (n, m) is above."""
    rank = max(1, round((1 - share) * len(values)))
    return values.kthvalue(rank, dim=0).values
