"""Which place an SAE fits, and whether that is the one that is claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from visae.config.saes import TokenKinds
from visae.intervals import RESAMPLES, interval, ratios, resampling_weights
from visae.sae.proof.fits import Fit
from visae.sae.proof.hypotheses import Hypothesis

Word = Literal["claimed", "another", "none", "found"]
# Errors of tokens that an SAE was not trained on have at least this share in common, of others less.
FOREIGN_BIAS = 0.07
# Patches leave more than this of the class tokens' error only where an SAE never saw them.
_MUCH_BETTER = 1.25
# All tokens together leave a smaller error than patches, by these shares, where an SAE saw class tokens too: the first
# where it errs on them in one direction still, the second where it does not, and would not if they are like patches.
_A_LITTLE, _CLEARLY = 0.002, 0.02
# An SAE that belongs to a place leaves at most this share of what it leaves when dimensions are put in another order.
MOST_OF_NULL = 0.9
# A claimed place stays unless another's error is smaller by at least so much, as a share of it; a clamp stays unless
# another's is by more.
LESS, MUCH_LESS = 0.005, 0.2
# 97.5 % quantile of the normal distribution, for intervals of 95 %.
_QUANTILE = 1.959964


@dataclass(frozen=True)
class Measured:
    """A value and its interval of 95 %."""

    value: float
    low: float
    high: float


class Resampled:
    """Measures of fits with intervals, all from the same resamples of the pictures."""

    def __init__(self, n_pictures: int, seed: int) -> None:
        self.n_pictures = n_pictures
        self._weights = resampling_weights(n_pictures, RESAMPLES, seed)

    def ratio(self, above: np.ndarray, below: np.ndarray) -> Measured:
        """Sum of one over sum of the other, (n_pictures,) each."""
        return Measured(float(ratios(above, below)), *interval(ratios(above, below, self._weights)))

    def difference(self, one: Fit, other: Fit) -> Measured:
        """Normalized error of a fit less that of another, at equal numbers of codes."""
        parts = [(fit.worse, fit.deviation) for fit in (one, other)]
        resampled = np.subtract(*(ratios(*part, self._weights) for part in parts))
        return Measured(float(np.subtract(*(ratios(*part) for part in parts))), *interval(resampled))

    def dead_share(self, fit: Fit) -> Measured:
        """Share of latents that no picture activates, by the jackknife over pictures.

        A resample has fewer pictures that differ, and so more dead latents than there are: it tells nothing of them.
        """
        n, share = self.n_pictures, fit.silent / fit.width
        spread = float(((fit.alone - fit.alone.mean()) ** 2).sum()) * (n - 1) / n
        half = _QUANTILE * spread**0.5 / fit.width
        return Measured(share, max(0.0, share - half), min(1.0, share + half))


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes
    ----------
    word
        `claimed`: the claimed place is the best. `another`: another fits better. `none`: none fits. `found`: nothing
        was claimed, and `best` fits.
    best
        What fits best; under `none`, what would.
    differs
        In what it is not what was claimed.
    kinds
        Tokens that it may have been trained on: several where they cannot be told apart.
    """

    word: Word
    best: Fit
    differs: list[str]
    kinds: list[TokenKinds]


def error_of(fit: Fit) -> float:
    """Normalized error that places are compared by, at equal numbers of codes; infinite where nothing varies."""
    error = float(ratios(fit.worse, fit.deviation))
    return error if np.isfinite(error) else float("inf")


def kinds_of_tokens(by_kind: Mapping[TokenKinds, Fit], foreign: Mapping[TokenKinds, float]) -> list[TokenKinds]:
    """Which tokens an SAE was trained on, from fits at one place; several where they cannot be told apart.

    The kind with the smallest error may be another: class tokens are few, and all tokens are patches for the most
    part. So it is asked too which kinds an SAE errs on in a direction of its own.

    Parameters
    ----------
    foreign
        Share of the squared errors that tokens have in common: of `patches` where the SAE is taken as one of class
        tokens, and of `class` where it is taken as one of patches. Empty where a model has no class token.
    """
    if not foreign:
        return [min(by_kind, key=lambda kind: error_of(by_kind[kind]))]
    patches, of_class, both = (error_of(by_kind[kind]) for kind in ("patches", "class", "all"))
    errs_on_patches = foreign["patches"] > FOREIGN_BIAS or of_class * _MUCH_BETTER < patches
    if of_class < patches and errs_on_patches and by_kind["class"].bias < FOREIGN_BIAS:
        return ["class"]
    # An SAE that errs on patches in one direction too does so on whatever it sees.
    if foreign["class"] > FOREIGN_BIAS and by_kind["patches"].bias < FOREIGN_BIAS:
        return ["all" if both < (1 - _A_LITTLE) * patches else "patches"]
    return ["all"] if both < (1 - _CLEARLY) * patches else ["all", "patches"]


def differing(best: Hypothesis, claim: Hypothesis) -> list[str]:
    """In what a hypothesis is not what was claimed."""
    found, said = ({**each.setup._asdict(), **asdict(each.point), "tokens": each.tokens} for each in (best, claim))
    names = ("layer", "hook", "tokens", "normalization", "statistics", "clamp")
    return [name for name in names if found[name] != said[name]]


def holds(one: Fit, best: Fit, resampled: Resampled, less: float) -> bool:
    """Whether a fit stands beside the best: the best has no smaller error but by chance, or not by that share of it."""
    gain = resampled.difference(one, best)
    return gain.low <= 0 or gain.value < less * error_of(one)


def fits(best: Fit, nulls: Sequence[Fit], resampled: Resampled) -> bool:
    """Whether an SAE belongs to a place at all: it is better there than the mean, and than on other dimensions."""
    error = resampled.ratio(best.worse, best.deviation)
    return error.high < 1 and error.value < MOST_OF_NULL * min(error_of(null) for null in nulls)
