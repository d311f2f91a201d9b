"""The best of the places that were measured, and what any SAE would reconstruct there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from visae.config.saes import TokenKinds
from visae.notices import Notice
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.proof.fits import Fit, fit
from visae.sae.proof.hypotheses import Hypothesis, Setup, moments_of, placed
from visae.sae.proof.search import by_setup, fits_at
from visae.sae.proof.tokens import PointTokens
from visae.sae.proof.verdict import Resampled, error_of, holds, kind_of_tokens
from visae.vision.model import HookPoint

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
) -> tuple[Fit, list[Fit], list[Notice]]:
    """Return the fit that is best, fits at its place with other clamps, and what is to be said of them.

    What is claimed is the best unless another place is better by more than chance.
    """
    notices = []
    ranked = by_setup(found)
    setup, of_kinds = ranked[0]
    kind = min(of_kinds, key=lambda kind: error_of(of_kinds[kind]))
    if claimed is not None and claimed.setup != setup:
        of_claimed = dict(ranked)[claimed.setup]
        if holds(of_claimed[kind], of_kinds[kind], resampled):
            setup, of_kinds = claimed.setup, of_claimed
    read = points[setup.point]
    if "class" in of_kinds and _alike(read):
        text = f"at layer {setup.point} class tokens and patches are alike: which ones it was trained on cannot be told"
        notices.append(Notice("note", text))
        kind = claimed.tokens if claimed is not None else "all"
    else:
        kind = kind_of_tokens(of_kinds, _foreign(sae, setup, read) if "class" in of_kinds else {})
    best = of_kinds[kind]
    others = [Hypothesis(setup._replace(clamp=clamp), kind) for clamp in _CLAMPS]
    measured = {each.hypothesis for each in found}
    clamped = list(fits_at(sae, [each for each in others if each not in measured], points, most_codes, "clamps"))
    better = min(clamped, key=error_of, default=best)
    return (best if holds(best, better, resampled) else better), clamped, notices


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
