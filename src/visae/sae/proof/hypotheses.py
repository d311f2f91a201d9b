"""Where an SAE may belong, and the SAE as it is there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from visae.activations.severity import Moments
from visae.config.saes import Normalization, TokenKinds
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.normalizing import Normalizing
from visae.sae.proof.tokens import PointTokens
from visae.vision.model import HookPoint

# Whose mean and scale: those in the SAE's file, those of the pictures' tokens there, no mean and the scale at which
# these tokens have a mean squared norm of d_model (SAELens' `expected_average_only_in`), or none, as none are needed.
Statistics = Literal["own", "pictures", "length", "none"]
_WHOSE: dict[Statistics, str] = {
    "pictures": " with the mean and scale of these pictures",
    "length": " without a mean, by the length of these pictures' tokens",
}


class Setup(NamedTuple):
    """Where in the model, and what is done to activations there before they are encoded; of any tokens.

    Attributes
    ----------
    normalization, statistics
        The kind, and whose mean and scale.
    clamp
        As of the SAE.
    """

    point: HookPoint
    normalization: Normalization
    statistics: Statistics
    clamp: float | None


class Hypothesis(NamedTuple):
    """A setup, and the kind of tokens."""

    setup: Setup
    tokens: TokenKinds

    @property
    def point(self) -> HookPoint:
        """Where in the model."""
        return self.setup.point

    def __str__(self) -> str:
        point, normalization, statistics, clamp = self.setup
        whose = _WHOSE.get(statistics, "")
        clamped = "" if clamp is None else f", clamp {clamp:g}"
        return f"layer {point.layer}, {point.hook}, tokens {self.tokens}, normalization {normalization}{whose}{clamped}"


def own_setup(sae: SparseAutoencoder, point: HookPoint) -> Setup:
    """Return what the SAE's file says to do at a point."""
    return Setup(point, sae.normalization, "own" if sae.centres else "none", sae.clamp)


def setups(sae: SparseAutoencoder, point: HookPoint) -> Iterator[Setup]:
    """Every normalization at a point, with the SAE's clamp and without."""
    for clamp in dict.fromkeys((sae.clamp, None)):
        if sae.centres:
            yield Setup(point, sae.normalization, "own", clamp)
        yield Setup(point, "none", "none", clamp)
        yield Setup(point, "per_token", "none", clamp)
        yield Setup(point, "scale", "pictures", clamp)
        yield Setup(point, "scale", "length", clamp)
        yield Setup(point, "per_dimension", "pictures", clamp)


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
    setup = hypothesis.setup
    if setup == own_setup(sae, setup.point):
        return sae
    buffers: dict[str, Tensor] = {}
    if setup.statistics == "length":
        buffers = {"scale": (moments.mean.square() + moments.deviation.square()).mean().sqrt()}
    elif setup.normalization == sae.normalization and setup.statistics != "pictures":
        buffers = {name: value for name, value in sae.named_buffers(recurse=False) if name in ("mean", "scale", "eps")}
    elif setup.statistics == "pictures":
        deviation = moments.deviation
        scale = deviation.square().mean().sqrt()
        if setup.normalization == "per_dimension":
            # A dimension that does not vary says nothing; it must not be divided by zero.
            scale = torch.where(deviation > 0, deviation, scale)
        buffers = {"mean": moments.mean, "scale": scale}
    twin = _renormalized(sae, setup.normalization, None, buffers)
    if setup.clamp is None:
        return twin
    inside = moments_of(read, hypothesis.tokens, twin)
    buffers |= {"limit": setup.clamp * inside.deviation}
    if not twin.centres:
        buffers |= {"middle": inside.mean}
    return _renormalized(sae, setup.normalization, setup.clamp, buffers)


def _renormalized(
    sae: SparseAutoencoder, normalization: Normalization, clamp: float | None, buffers: dict[str, Tensor]
) -> SparseAutoencoder:
    """Return an SAE with another normalization over the same weights."""
    other = Normalizing(normalization, sae.d_model, None, clamp)
    kept = {name: value for name, value in sae._buffers.items() if name not in Normalizing.__annotations__}
    given = {**dict(other.named_buffers()), **buffers}
    twin = copy.copy(sae)
    twin._buffers = kept | {name: given[name].to(sae.decoder_bias) for name in dict(other.named_buffers())}
    twin.normalization, twin.centres, twin.clamp = normalization, other.centres, clamp
    return twin
