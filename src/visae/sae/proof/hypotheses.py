"""Where an SAE may belong, and the SAE as it is there."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visae.activations.severity import Moments
from visae.config.saes import Normalization, TokenKinds
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.normalizing import Normalizing
from visae.sae.proof.tokens import PointTokens
from visae.vision.model import HookPoint

# Whose mean and scale: those in the SAE's file, those of the pictures' tokens there, or none, as none are needed.
Statistics = Literal["own", "pictures", "none"]


@dataclass(frozen=True)
class Hypothesis:
    """One place, and what is done to activations there before they are encoded.

    Attributes
    ----------
    point, tokens
        Where in the model, and which tokens of a picture.
    normalization, statistics
        The kind, and whose mean and scale.
    clamp
        As of the SAE.
    """

    point: HookPoint
    tokens: TokenKinds
    normalization: Normalization
    statistics: Statistics
    clamp: float | None

    def __str__(self) -> str:
        parts = [f"layer {self.point.layer}", self.point.hook, self.tokens, self.normalization]
        if self.statistics == "pictures":
            parts.append("(mean and scale of these pictures)")
        return " ".join([*parts, *([f"clamp {self.clamp:g}"] if self.clamp is not None else [])])


def hypotheses_at(
    sae: SparseAutoencoder, point: HookPoint, tokens: TokenKinds, clamps: Sequence[float | None]
) -> Iterator[Hypothesis]:
    """Every normalization of a place, with each of some clamps."""
    for clamp in clamps:
        if sae.centres:
            yield Hypothesis(point, tokens, sae.normalization, "own", clamp)
        yield Hypothesis(point, tokens, "none", "none", clamp)
        yield Hypothesis(point, tokens, "per_token", "none", clamp)
        yield Hypothesis(point, tokens, "scale", "pictures", clamp)
        yield Hypothesis(point, tokens, "per_dimension", "pictures", clamp)


def moments_of(read: PointTokens, tokens: TokenKinds, sae: SparseAutoencoder | None = None) -> Moments:
    """Mean and deviations of the tokens of one kind; with an SAE, in its normalized units before any clamping."""
    device = torch.device("cpu") if sae is None else sae.decoder_bias.device
    moments = Moments()
    for _, rows, weights in read.parts(tokens, device):
        for weight in weights.unique().tolist():
            some = rows[:, weights == weight].flatten(0, 1)
            moments.add(some if sae is None else sae.unclamped(some), weight)
    return moments


def placed(sae: SparseAutoencoder, hypothesis: Hypothesis, read: PointTokens, moments: Moments) -> SparseAutoencoder:
    """Return the SAE under a hypothesis: it shares all weights with the one that is given, which stays as it is.

    Parameters
    ----------
    read, moments
        Tokens at the hypothesis's point, and the moments of those of its kind.
    """
    if hypothesis.statistics == "own" and hypothesis.clamp == sae.clamp:
        return sae
    buffers = {}
    if hypothesis.statistics == "own":
        buffers = {"mean": sae.mean, "scale": sae.scale}
    elif hypothesis.statistics == "pictures":
        deviation = moments.deviation
        scale = deviation.square().mean().sqrt()
        if hypothesis.normalization == "per_dimension":
            # A dimension that does not vary says nothing; it must not be divided by zero.
            scale = torch.where(deviation > 0, deviation, scale)
        buffers = {"mean": moments.mean, "scale": scale}
    twin = _renormalized(sae, hypothesis.normalization, None, buffers)
    if hypothesis.clamp is None:
        return twin
    inside = moments_of(read, hypothesis.tokens, twin)
    buffers |= {"limit": hypothesis.clamp * inside.deviation}
    if not twin.centres:
        buffers |= {"middle": inside.mean}
    return _renormalized(sae, hypothesis.normalization, hypothesis.clamp, buffers)


def _renormalized(
    sae: SparseAutoencoder, normalization: Normalization, clamp: float | None, buffers: dict[str, Tensor]
) -> SparseAutoencoder:
    """Return an SAE with another normalization over the same weights."""
    other = Normalizing(normalization, sae.d_model, None, clamp)
    twin = copy.copy(sae)
    twin._buffers = {
        name: buffers.get(name, value).to(sae.decoder_bias) for name, value in dict(other.named_buffers()).items()
    }
    twin.normalization, twin.centres, twin.clamp = normalization, other.centres, clamp
    return twin
