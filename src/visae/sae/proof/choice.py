"""The best of the places that were measured, and what any SAE would reconstruct there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from visae.config.saes import TokenKinds
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.proof.fits import Fit, fit
from visae.sae.proof.hypotheses import Hypothesis, Setup, moments_of, placed
from visae.sae.proof.search import by_setup, fits_at
from visae.sae.proof.tokens import PointTokens
from visae.sae.proof.verdict import LESS, MUCH_LESS, Resampled, error_of, holds, kinds_of_tokens
from visae.vision.model import HookPoint

# An SAE's own mean and scale are its own where they explain at least this share of what those of the pictures do.
_OWN_EXPLAINS = 2 / 3
# What takes no mean and scale from the pictures is preferred where its error is larger by no more than this share.
_NEARLY = 0.1
# Clamps that are tried at the best place, in standard deviations.
_CLAMPS = (None, 2.0, 3.0, 5.0)
# Tokens whose means are this near to each other, in shares of the variance, cannot be told apart by errors.
_ALIKE = 0.005
# Orders of dimensions that the best fit is compared with.
_NULLS = 5


def best_of(
    sae: SparseAutoencoder,
    found: Sequence[Fit],
    claimed: Hypothesis | None,
    points: dict[HookPoint, PointTokens],
    resampled: Resampled,
    most_codes: float,
) -> tuple[Fit, list[Fit], list[TokenKinds]]:
    """Return the fit that is best, fits at its place with other clamps, and the tokens that it may be of.

    What is claimed is the best unless another place is better by more than chance.
    """
    ranked = by_setup(found)
    setup, of_kinds = next(iter(ranked.items()))
    kind = min(of_kinds, key=lambda kind: error_of(of_kinds[kind]))
    if setup.statistics in ("pictures", "length"):
        setup = _unfitted(ranked, setup, kind)
        of_kinds = ranked[setup]
    if claimed is not None and holds(ranked[claimed.setup][kind], of_kinds[kind], resampled, LESS):
        setup, of_kinds = claimed.setup, ranked[claimed.setup]
    read = points[setup.point]
    kinds: list[TokenKinds] = ["all", "patches", "class"]
    if "class" not in of_kinds or not _alike(read):
        kinds = kinds_of_tokens(of_kinds, _foreign(sae, setup, read) if "class" in of_kinds else {})
    kind = claimed.tokens if claimed is not None and claimed.tokens in kinds else kinds[0]
    best = of_kinds[kind]
    measured = {each.hypothesis for each in found}
    hypotheses = [Hypothesis(setup._replace(clamp=clamp), kind) for clamp in _CLAMPS]
    clamped = list(fits_at(sae, [each for each in hypotheses if each not in measured], points, most_codes, "clamps"))
    better = min(clamped, key=error_of, default=best)
    return (best if holds(best, better, resampled, MUCH_LESS) else better), clamped, kinds


def _unfitted(ranked: Mapping[Setup, Mapping[TokenKinds, Fit]], best: Setup, kind: TokenKinds) -> Setup:
    """Return a place that takes nothing from the pictures and fits nearly as well as one that does, or that one.

    The SAE's own mean and scale tell where it belongs. Those of the pictures fit everywhere a little better, and by
    more where pictures are of another kind than those of the training.
    """
    error = error_of(ranked[best][kind])
    own = next((other for other in ranked if other.statistics == "own"), None)
    if own is not None and 1 - error_of(ranked[own][kind]) > _OWN_EXPLAINS * (1 - error):
        return own
    plain = [best._replace(normalization=name, statistics="none") for name in ("none", "per_token")]
    near = [other for other in plain if other in ranked and error > (1 - _NEARLY) * error_of(ranked[other][kind])]
    return min(near, key=lambda other: error_of(ranked[other][kind]), default=best)


def _alike(read: PointTokens) -> bool:
    """Whether class tokens are where patches are, as far as chance lets one say."""
    patches, first = (moments_of(read, kind) for kind in ("patches", "class"))
    chance = first.deviation.square().sum() / len(read.rows)
    apart = (patches.mean - first.mean).square().sum() - chance
    return bool(apart < _ALIKE * patches.deviation.square().sum())


def _foreign(sae: SparseAutoencoder, setup: Setup, read: PointTokens) -> dict[TokenKinds, float]:
    """Share of the squared errors that tokens have in common where the SAE is taken as one of other tokens."""
    shares: dict[TokenKinds, float] = {}
    pairs: tuple[tuple[TokenKinds, TokenKinds], ...] = (("class", "patches"), ("patches", "class"))
    for seen, unseen in pairs:
        there = placed(sae, Hypothesis(setup, seen), read, moments_of(read, seen))
        shares[unseen] = fit(there, Hypothesis(setup, unseen), read, moments_of(read, unseen).mean).bias
    return shares


def nulls_of(sae: SparseAutoencoder, best: Hypothesis, read: PointTokens, most_codes: float, seed: int) -> list[Fit]:
    """Fits of a place whose deviations from the mean have their dimensions in another order."""
    moments = moments_of(read, best.tokens)
    there = placed(sae, best, read, moments)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(sae.d_model, generator=generator) for _ in range(_NULLS)]
    device = sae.decoder_bias.device
    return [fit(there, best, read, moments.mean, most_codes, order.to(device)) for order in orders]
