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
# One cluster centroid for so many latents: two sizes of cluster, a twentieth of the latents in all.
_LATENTS_PER_CENTROID = (96, 24)
_ITERATIONS = 8


def initial_sae(settings: AnySae, sample: Tensor, seed: int) -> SparseAutoencoder:
    """Untrained SAE on a sample's normalization: unit decoder rows, the encoder their transpose.

    Some of the rows are the sample's cluster centroids, at two sizes of cluster: latents then exist for
    whole concepts (sky, trees), which random rows often split among several latents in a short training. The
    others are random, for what is left.

    Activations are centred before the encoder, so a decoder bias of zero is the data's mean. Encoder biases
    are zero for TopK. For ReLU they let each latent be active on a small share of the tokens: with half of
    all latents active, the first reconstructions are far too large, and a short training is spent on that.

    Parameters
    ----------
    sample
        (n, d_model) raw activations.
    seed
        Of the random rows and of the clusters' starts.

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
    directions = normalize((sample - mean) / scale)
    rows = [
        centroids(directions, min(sae.width // latents, len(directions)), generator)
        for latents in _LATENTS_PER_CENTROID
    ]
    n_random = sae.width - sum(len(part) for part in rows)
    rows.append(normalize(torch.randn(n_random, sae.d_model, generator=generator)))
    with torch.no_grad():
        sae.decoder_weight.copy_(torch.cat(rows))
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


def centroids(directions: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Unit centroids (n_clusters, d) of unit vectors (n, d), by spherical k-means from random members."""
    members = torch.randperm(len(directions), generator=generator)[:n_clusters]
    found = directions[members].clone()
    if n_clusters == 0:
        return found
    for _ in range(_ITERATIONS):
        nearest = torch.cat([(part @ found.T).argmax(1) for part in directions.split(_CHUNK)])
        sums = torch.zeros_like(found).index_add_(0, nearest, directions)
        # A cluster that has lost all members stays where it is.
        found = normalize(sums + 1e-6 * found)
    return found
