"""What is proposed as the meaning of which latent, and by whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visae.audit.dictionary import Dictionary, Scores, fitted, most_frequent
from visae.audit.meanings import CAUSED, PATCH_CLASS, PICTURE_CLASS, Aspect, Found
from visae.config.audit import AuditSettings

LABELS, PICTURE_LABELS, CAUSES_KNOWN = "labels", "picture_labels", "causes"
EXEMPLARS, AT_RANDOM = "exemplars", "random"
SOURCES = (LABELS, PICTURE_LABELS, CAUSES_KNOWN, EXEMPLARS, AT_RANDOM)
"""Sources that any dictionary has: the best class by F1 of patches, by AUC of pictures, the best cause by AUC, the most
frequent class among exemplars, and, as their control, a meaning drawn at random."""


@dataclass(frozen=True)
class Proposal:
    """A meaning that a source proposes for a latent.

    Attributes
    ----------
    meaning
        In the words of the source.
    found
        What is tested; None where no such meaning is known.
    score
        What the source ranks by, on split train; NaN where it gives none.
    replicates
        Of causal proposals, whether the edit showed its effect twice; None where it was not edited.
    """

    source: str
    latent: int
    meaning: str
    found: Found | None
    score: float = float("nan")
    replicates: bool | None = None


@dataclass(frozen=True)
class Fitted:
    """What split train says of a dictionary: scores by aspect, and which latents are active, bool (width,)."""

    scores: dict[str, Scores]
    active: NDArray[np.bool_]


def proposed(
    dictionary: Dictionary, aspects: Sequence[Aspect], split: str, settings: AuditSettings, seed: int
) -> tuple[list[Proposal], Fitted]:
    """Propose one meaning for each active latent, by each of SOURCES that the data set allows, the surest first.

    Parameters
    ----------
    split
        Nothing else is looked at.
    settings
        Section `audit`.
    seed
        Of the meanings drawn at random, and of the order among equally sure ones.

    Returns
    -------
    tuple
        At most `settings.proposals` of each source; and what they come from.
    """
    fit = Fitted(*fitted(dictionary, aspects, split))
    by_name = {aspect.name: aspect for aspect in aspects}
    active = np.flatnonzero(fit.active)
    found: list[Proposal] = []
    for source, own, scores in _tables(fit, by_name):
        found += _best(source, own, scores[active], active, settings.proposals, seed)
    first = aspects[0]
    values, shares = most_frequent(dictionary, first, split, settings.exemplars)
    surprise = _surprise(shares, values, first.labels[split].positives)
    one_hot = np.full((len(active), len(first.values)), np.nan)
    named = values[active] >= 0
    one_hot[np.flatnonzero(named), values[active][named]] = surprise[active][named]
    found += _best(EXEMPLARS, [(first, n) for n in range(len(first.values))], one_hot, active, settings.proposals, seed)
    return found + _at_random(first, split, active, settings.proposals, seed), fit


def _surprise(
    shares: NDArray[np.float64], values: NDArray[np.int64], positives: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How unlikely exemplars are if the latent means nothing, (width,): of a value that most units have not at all.

    Kullback and Leibler's divergence of a value's share among exemplars from its share of all labelled units, which is
    the logarithm of their likelihood ratio for each exemplar; 0 where the share is no larger.
    """
    usual = (positives / max(1, positives.sum()))[values]
    with np.errstate(divide="ignore", invalid="ignore"):
        has, has_not = shares * np.log(shares / usual), (1 - shares) * np.log((1 - shares) / (1 - usual))
    found = np.where(shares < 1, has + has_not, has)
    return np.where((values >= 0) & (shares > usual), found, 0.0)


Meaning = tuple[Aspect, int]


def _tables(fit: Fitted, by_name: dict[str, Aspect]) -> Iterator[tuple[str, list[Meaning], NDArray]]:
    """Yield sources that rank by scores: their meanings, and the scores (width, n_meanings)."""
    if PATCH_CLASS in by_name:
        yield LABELS, *_joined([by_name[PATCH_CLASS]], [fit.scores[PATCH_CLASS].f1])
    if PICTURE_CLASS in by_name:
        yield PICTURE_LABELS, *_joined([by_name[PICTURE_CLASS]], [fit.scores[PICTURE_CLASS].auc])
    caused = [aspect for aspect in by_name.values() if aspect.family == CAUSED]
    if caused:
        yield CAUSES_KNOWN, *_joined(caused, [fit.scores[aspect.name].auc for aspect in caused])


def _joined(aspects: Sequence[Aspect], scores: Sequence[NDArray]) -> tuple[list[Meaning], NDArray]:
    return [(aspect, n) for aspect in aspects for n in range(len(aspect.values))], np.concatenate(scores, axis=1)


def _best(
    source: str, meanings: list[Meaning], scores: NDArray, latents: NDArray[np.int64], most: int, seed: int
) -> list[Proposal]:
    """Propose the best meaning of each latent by scores (len(latents), n_meanings), the best of all latents first."""
    reached = np.where(np.isnan(scores), -np.inf, scores)
    best = reached.argmax(axis=1)
    score = np.take_along_axis(reached, best[:, None], axis=1)[:, 0]
    # Among equals none goes first by its number, which says something in PCA.
    order = np.random.default_rng([seed, 31]).permutation(len(latents))
    order = order[np.argsort(-score[order], kind="stable")]
    chosen = [place for place in order.tolist() if score[place] > 0][:most]
    found = []
    for place in chosen:
        aspect, number = meanings[best[place]]
        found.append(_of(source, int(latents[place]), aspect, number, float(score[place])))
    return found


def _of(source: str, latent: int, aspect: Aspect, number: int, score: float = float("nan")) -> Proposal:
    return Proposal(source, latent, aspect.values[number], Found(aspect.name, number), score)


def _at_random(aspect: Aspect, split: str, active: NDArray[np.int64], most: int, seed: int) -> list[Proposal]:
    """Propose meanings that occur on the split, drawn evenly, for latents drawn at random."""
    generator = np.random.default_rng([seed, 32])
    there = np.flatnonzero(aspect.labels[split].positives)
    if not len(there):
        return []
    drawn = generator.permutation(active)[:most]
    meanings = generator.choice(there, size=len(drawn))
    return [_of(AT_RANDOM, int(latent), aspect, int(n)) for latent, n in zip(drawn, meanings, strict=True)]
