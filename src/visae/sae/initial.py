"""Where training starts: normalization and initial weights."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.config.settings import AnySae
from visae.errors import TrainingError
from visae.products import linear
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.clusters import centroids
from visae.sae.variants.baselines import Baseline
from visae.sae.variants.members import VARIANTS
from visae.sae.variants.variant import Variant

# Tokens that variants fit their own start to.
_CHUNK = 8192
# Tokens that the scales of codes are fitted to: a power of two takes no more, and a step on them little memory.
_FITTED = 2048
# One cluster centroid for so many latents: two sizes of cluster, a twentieth of the latents in all.
_LATENTS_PER_CENTROID = (96, 24)


@torch.no_grad()
def initial_sae(settings: AnySae, sample: Tensor, seed: int, target: Tensor | None = None) -> SparseAutoencoder:
    """Untrained SAE on a sample's normalization: unit decoder rows, the encoder their transpose.

    Some of the rows are the sample's cluster centroids, at two sizes of cluster: latents then exist for
    whole concepts (sky, trees), which random rows often split among several latents in a short training. The
    others are random, for what is left. A baseline fits all of its weights to the sample instead.

    Activations are centred before the encoder, so a decoder bias of zero is the data's mean. Where normalization does
    not centre them, all is fitted to centred ones, and the biases then take the mean in. What else a variant needs,
    such as biases or thresholds, its own `start` fits to the sample.

    Parameters
    ----------
    sample
        (n, d_model) raw activations.
    seed
        Of the random rows and of the clusters' starts.
    target
        (n, d_target) raw activations of another layer for the same tokens, which makes a transcoder.

    Raises
    ------
    TrainingError
        If all activations are the same.
    """
    sae = empty_sae(settings, sample.shape[1], None if target is None else target.shape[1])
    # A stream of its own: the data's order, or made data, must not share numbers with the weights.
    own_seed = int(np.random.SeedSequence([seed, 0x5AE]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(own_seed)
    _take_normalization(sae, sample, target)
    inputs = sae.normalized(sample)
    middle = None if sae.centres else inputs.mean(0)
    if middle is not None:
        normalization(inputs)  # refuses what is all the same
        inputs = inputs - middle
    if isinstance(sae.variant, Baseline):
        sae.variant.fit(sae.weights, inputs, settings, own_seed)
        _shift(sae, middle)
        return sae
    directions = normalize(inputs)
    rows = [
        centroids(directions, min(sae.width // latents, len(directions)), generator)
        for latents in _LATENTS_PER_CENTROID
    ]
    n_random = sae.width - sum(len(part) for part in rows)
    rows.append(normalize(torch.randn(n_random, sae.d_model, generator=generator)))
    weights = sae.weights
    weights.encoder.copy_(torch.cat(rows))
    some = torch.randperm(len(sample), generator=generator)[:_CHUNK]
    if target is None:
        weights.decoder.copy_(weights.encoder)
        sae.variant.start(weights, inputs[some], generator)
    else:
        wanted = sae.normalized_target(target)[some]
        # What the target is on average where a latent would be active; a little of chance keeps rows apart.
        means = linear(linear(inputs[some], weights.encoder).relu_().T, wanted.T)
        chance = torch.randn(means.shape, generator=generator)
        weights.decoder.copy_(normalize(normalize(means) + 0.1 * normalize(chance)))
        sae.variant.start(weights, inputs[some], generator, wanted)
    if settings.encoder_start == "fitted":
        few = some[:_FITTED]
        _fit_codes(sae, inputs[few], inputs[few] if target is None else wanted[:_FITTED], sae.width - n_random)
    _shift(sae, middle)
    return sae


def _shift(sae: SparseAutoencoder, middle: Tensor | None) -> None:
    """Let weights that were fitted to inputs less their mean `middle` (d_model,) take them as they are."""
    if middle is not None:
        sae.variant.shift(sae.weights, middle)
        if not sae.is_transcoder:
            sae.weights.decoder_bias.add_(middle)


def _fit_codes(sae: SparseAutoencoder, inputs: Tensor, target: Tensor, n_centroids: int) -> None:
    """Scale the codes of centroids, and those of the other latents, to where they alone reconstruct inputs best.

    Rows that are active together are alike, and each alone would explain much of a token: their sum overshoots, that of
    centroids most. Scales are powers of two, which round nothing: what lies exactly on a threshold stays there.
    """
    weights, no_dead = sae.weights, torch.zeros(sae.width, dtype=torch.bool)
    factors = torch.ones(sae.width)
    for part in (slice(n_centroids), slice(n_centroids, None)):
        alone = torch.full_like(weights.encoder_bias, -torch.inf)
        alone[part] = weights.encoder_bias[part]
        made = sae.variant.step(weights._replace(encoder_bias=alone), inputs, 0, no_dead, target).error + target
        factor = float((made * target).sum() / made.square().sum())
        if factor > 0:  # it is not a number where no code is positive
            factors[part] = 2.0 ** math.floor(math.log2(factor))
    sae.variant.scale(weights, factors)


def _take_normalization(sae: SparseAutoencoder, sample: Tensor, target: Tensor | None) -> None:
    """Set mean and scale of what goes in and what comes out, and how far it may be from its mean."""
    each = sae.normalization == "per_dimension"
    if sae.centres:
        mean, scale = normalization(sample, each)
        sae.mean.copy_(mean)
        sae.scale.copy_(scale)
    if target is not None:
        target_mean, target_scale = normalization(target, each)
        sae.target_mean.copy_(target_mean)
        sae.target_scale.copy_(target_scale)
    if sae.clamp is not None and sae.centres:
        sae.limit.copy_(sae.clamp * sample.std(0, correction=0) / scale)
    elif sae.clamp is not None:
        inputs = sae.unclamped(sample)
        sae.middle.copy_(inputs.mean(0))
        sae.limit.copy_(sae.clamp * inputs.std(0, correction=0))


def empty_sae(settings: AnySae, d_model: int, d_target: int | None = None) -> SparseAutoencoder:
    """SAE of the right shape, all weights zero; a transcoder where `d_target` is given."""
    width = round(settings.expansion * d_model)
    kind = cast(Any, VARIANTS[settings.variant])
    variant = cast(Variant, kind.from_settings(settings, width, d_target or d_model))
    return SparseAutoencoder(d_model, width, variant, d_target, settings.clamp, settings.normalization)


def normalization(sample: Tensor, each: bool = False) -> tuple[Tensor, Tensor]:
    """Mean (d_model,), and the scale () at which the centred sample has a mean squared norm of d_model.

    Parameters
    ----------
    each
        Give a scale for each dimension, (d_model,): its standard deviation. One that does not vary has that of all.

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
    if each:
        deviations = sample.double().std(0, correction=0)
        scale = torch.where(deviations > 1e-6 * scale, deviations, scale)
    return mean.float(), scale.float()
