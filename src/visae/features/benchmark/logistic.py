"""Logistic regressions on one latent each: from its codes alone, silent units being one lump."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS = 100
_HALVINGS = 30
_CLOSE = 1e-10
# Keeps the weight of a latent that tells a class perfectly finite; values are divided by their largest.
_RIDGE = 1e-8


@dataclass(frozen=True)
class Fits:
    """Logit = bias + weight * value of one latent, for several classes, (k,) each."""

    bias: NDArray[np.float64]
    weight: NDArray[np.float64]

    def losses(
        self, values: NDArray[np.float64], hits: NDArray[np.bool_], silent: NDArray, silent_hits: NDArray
    ) -> NDArray[np.float64]:
        """Sum of the cross entropy over all units, (k,); see `fit`."""
        return _losses(self.bias, self.weight, values, hits, silent, silent_hits)


def fit(values: NDArray[np.floating], hits: NDArray[np.bool_], n_units: int, positives: NDArray[np.int64]) -> Fits:
    """Fit by Newton's method, which halves steps that lead up.

    Parameters
    ----------
    values
        (n,) of the units where the latent is active.
    hits
        (k, n) which of them are of each class.
    n_units
        Units, active or not.
    positives
        (k,) units of each class, active or not; neither none nor all.
    """
    scale = float(np.abs(values).max(initial=0)) or 1.0
    x = values.astype(np.float64) / scale
    silent = np.full(len(positives), n_units - len(x), dtype=np.float64)
    silent_hits = positives - hits.sum(axis=1)
    share = positives / n_units
    bias, weight = np.log(share / (1 - share)), np.zeros(len(positives))
    loss = _losses(bias, weight, x, hits, silent, silent_hits)
    for _ in range(_STEPS):
        chance, chance_silent = _sigmoid(bias[:, None] + weight[:, None] * x), _sigmoid(bias)
        missed, curve = chance - hits, chance * (1 - chance)
        slope = np.stack(
            [missed.sum(axis=1) + silent * chance_silent - silent_hits, missed @ x + _RIDGE * weight], axis=1
        )
        corner = curve @ x
        first = curve.sum(axis=1) + silent * chance_silent * (1 - chance_silent) + _RIDGE
        last = curve @ x**2 + _RIDGE
        determinant = np.maximum(first * last - corner**2, 1e-300)
        step = np.stack([last * slope[:, 0] - corner * slope[:, 1], first * slope[:, 1] - corner * slope[:, 0]])
        step /= determinant
        size, moving = np.ones(len(loss)), np.ones(len(loss), dtype=bool)
        for _ in range(_HALVINGS):
            tried = bias - size * step[0], weight - size * step[1]
            found = _losses(*tried, x, hits, silent, silent_hits)
            moving = ~(found <= loss)
            if not moving.any():
                break
            size[moving] /= 2
        gain = np.where(moving, 0, loss - found)
        bias, weight = (np.where(moving, old, new) for old, new in zip((bias, weight), tried, strict=True))
        loss = np.where(moving, loss, found)
        if (gain <= _CLOSE * (1 + loss)).all():
            break
    return Fits(bias, weight / scale)


def first_gains(
    sums: NDArray,
    hits: NDArray,
    total: NDArray,
    squares: NDArray,
    active: NDArray,
    positives: NDArray,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """About by how much each latent lowers the loss of each class, by two measures that no fit is needed for.

    Parameters
    ----------
    sums, hits
        (n_latents, n_classes) sum of a latent's values on units of a class, and how many it is active on.
    total, squares, active
        (n_latents,) sum of values, of their squares, and active units, of any class.
    positives
        (n_classes,) units of each class.

    Returns
    -------
    tuple
        (n_latents, n_classes) each: what a step from the bias alone promises, and what is known from whether the
        latent is active.
    """
    n = positives.sum()
    share = positives / n
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = sums - share * total[:, None]
        spread = (squares - total**2 / n)[:, None] * share * (1 - share)
        promised = np.where(spread > 0, slope**2 / (2 * spread), 0)
        loss = _entropy(hits, active[:, None]) + _entropy(positives - hits, n - active[:, None])
    return promised, _entropy(positives, n) - loss


def _entropy(part: NDArray, whole: NDArray | int) -> NDArray[np.float64]:
    """Cross entropy of `part` of `whole` units, by their share, summed over the units."""
    rest = whole - part
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.where(count > 0, count * np.log(count / whole), 0) for count in (part, rest)]
    return -(logs[0] + logs[1])


def _losses(
    bias: NDArray, weight: NDArray, x: NDArray, hits: NDArray[np.bool_], silent: NDArray, silent_hits: NDArray
) -> NDArray[np.float64]:
    logits = bias[:, None] + weight[:, None] * x
    active = np.logaddexp(0, logits).sum(axis=1) - (logits * hits).sum(axis=1)
    return active + silent * np.logaddexp(0, bias) - silent_hits * bias


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -logits))
