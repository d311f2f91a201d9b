"""The test of a proposed meaning: whether its latent tells units with it from others, on pictures not seen before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visae.audit.dictionary import Dictionary, Scores, scores_of_block
from visae.audit.meanings import Aspect
from visae.features.concepts import Labels
from visae.features.ranking import Entries
from visae.features.resampling import p_value, permutations, picture_weights, resampled_scores
from visae.intervals import interval

Test = tuple[str, int, int]
"""Name of an aspect, latent, and number of the value."""

UNKNOWN, ABSENT = "no class or cause of this name", "no held-out unit has it"
EVERYWHERE, SILENT = "all held-out units have it", "the latent is never active"
REASONS = (UNKNOWN, ABSENT, EVERYWHERE, SILENT)
"""Why a proposal cannot be tested."""

# Small enough for a processor's cache.
_CHUNK_VALUES = 100_000


@dataclass(frozen=True)
class Held:
    """What held-out pictures say of a meaning of a latent.

    Attributes
    ----------
    auc, low, high
        Area under the ROC curve of the latent's value, units with the meaning against all others, with its interval
        from resampled pictures; NaN where none was asked for.
    average_precision
        Of the same units.
    null, p
        Mean of the same after labels were moved between pictures, and the share of these that are as large.
    rank, n_meanings
        How many meanings of the same family the latent tells better, and how many there are.
    n_units, n_pictures
        That have the meaning.
    share
        Of all labelled units that have it: the average precision of guessing.
    is_active
        Whether the latent is active on these pictures.
    """

    auc: float
    low: float
    high: float
    average_precision: float
    null: float
    p: float
    rank: int
    n_meanings: int
    n_units: int
    n_pictures: int
    share: float
    is_active: bool


def untestable(aspect: Aspect, number: int, split: str) -> str | None:
    """Say why a meaning cannot be tested on a split, or nothing."""
    positives = aspect.labels[split].positives
    if not positives[number]:
        return ABSENT
    return EVERYWHERE if positives[number] == positives.sum() else None


def held_out(
    dictionary: Dictionary,
    aspects: Sequence[Aspect],
    split: str,
    tests: Collection[Test],
    *,
    n_permutations: int,
    resamples: int,
    seed: int,
) -> dict[Test, Held]:
    """Test meanings of latents, each once.

    The null moves the labels of whole pictures to other pictures, patch by patch. What a latent owes to the place in
    the picture alone is then as large in the null, and patches of one picture are not taken for independent.

    Parameters
    ----------
    split
        That the tests are made on.
    tests
        Of meanings for which `untestable` has nothing to say.
    n_permutations, resamples
        Behind each p-value and each interval; with 0 resamples there are no intervals.
    seed
        Of both.
    """
    n_pictures = len(dictionary.drawn[split])
    # Before all that move labels, the one that leaves them where they are.
    as_is = np.arange(n_pictures, dtype=np.int32)[None]
    orders = np.concatenate([as_is, permutations(n_pictures, n_permutations, seed)])
    weights = picture_weights(n_pictures, resamples, seed) if resamples else None
    numbers: dict[tuple[str, int], list[int]] = {}
    for name, latent, number in tests:
        numbers.setdefault((name, latent), []).append(number)
    scores: dict[str, list[Scores]] = {aspect.name: [] for aspect in aspects}
    tested: dict[Test, _Tested] = {}
    for pooled in sorted({aspect.pooled for aspect in aspects}):
        own = [aspect for aspect in aspects if aspect.pooled == pooled]
        for latents, entries in dictionary.blocks(split, pooled):
            for aspect in own:
                scores[aspect.name].append(scores_of_block(entries, aspect, split))
                for latent in latents:
                    if asked := numbers.get((aspect.name, latent)):
                        of_latent = entries.of_latent(latent - latents.start)
                        found = _tested(of_latent, aspect.labels[split], asked, orders, weights)
                        tested |= {(aspect.name, latent, n): one for n, one in zip(asked, found, strict=True)}
    whole = {name: Scores.joined(parts) for name, parts in scores.items()}
    return {test: _ranked(test, of_test, aspects, whole, split) for test, of_test in tested.items()}


@dataclass(frozen=True)
class _Tested:
    """What the codes of one latent say."""

    auc: float
    low: float
    high: float
    null: float
    p: float
    is_active: bool


def _tested(
    entries: Entries,
    labels: Labels,
    numbers: Sequence[int],
    orders: NDArray[np.int32],
    weights: NDArray[np.float32] | None,
) -> list[_Tested]:
    """Test some meanings by the codes of one latent."""
    aucs = permuted_aucs(entries, labels, numbers, orders)
    p = p_value(aucs[:, 0], aucs[:, 1:].T)
    found = []
    for place, number in enumerate(numbers):
        low = high = float("nan")
        if weights is not None:
            low, high = interval(_resampled(entries, labels, number, weights))
        null = float(aucs[place, 1:].mean())
        found.append(_Tested(float(aucs[place, 0]), low, high, null, float(p[place]), len(entries.value) > 0))
    return found


def permuted_aucs(
    entries: Entries, labels: Labels, numbers: Sequence[int], orders: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Area under the ROC curve of one latent for some classes, labels moved between pictures; (n_classes, n_orders).

    Units without a code are tied at the bottom, and those without a class take no part.

    Parameters
    ----------
    entries
        Codes of the latent on all units, with a class or without: labels that move may come to lie on any.
    labels
        Classes of the units.
    numbers
        The classes; of each there are units, and others.
    orders
        (n_orders, n_pictures): picture i has the labels of picture order[i].
    """
    found = np.empty((len(numbers), len(orders)))
    flat, n_tokens = labels.classes.ravel(), labels.classes.shape[1]
    first, last = entries.runs
    tied = np.flatnonzero(first != last)
    # Sums over codes of numbers of codes: of more than that they would not fit.
    counted = np.int32 if len(entries.value) < 1 << 15 else np.int64
    chunk = max(1, _CHUNK_VALUES // max(1, len(entries.value)))
    for start in range(0, len(orders), chunk):
        part = slice(start, min(start + chunk, len(orders)))
        classes = flat.take(orders[part][:, entries.picture] * np.int64(n_tokens) + entries.token)
        known = classes >= 0
        for place, number in enumerate(numbers):
            positives = int(labels.positives[number])
            negatives = int(labels.positives.sum()) - positives
            is_own = classes == number
            # Other units with larger values, of each code; of equal ones those that happen to come first, too.
            larger: NDArray[Any] = np.cumsum(known & ~is_own, axis=1, dtype=counted)
            lost: NDArray[Any] = np.einsum("ij,ij->i", is_own, larger).astype(np.float64)
            if len(tied):
                larger_too = np.pad(larger, ((0, 0), (1, 0)))
                half = (larger_too[:, first[tied]] + larger_too[:, last[tied] + 1]) / 2
                lost += (is_own[:, tied] * (half - larger[:, tied])).sum(axis=1)
            active = larger[:, -1] if larger.shape[1] else 0
            silent = (positives - is_own.sum(axis=1)) * (negatives + active) / 2
            found[place, part] = 1 - (lost + silent) / (positives * negatives)
    return found


def _resampled(entries: Entries, labels: Labels, number: int, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same when pictures count several times or not at all, (resamples,)."""
    classes = labels.of(entries)
    known, classes = entries[classes >= 0], classes[classes >= 0]
    is_own = classes == number
    by_picture = labels.by_picture(number), labels.by_picture()
    return resampled_scores(known.picture, is_own, is_own, known.runs, *by_picture, weights)[2]


def _ranked(test: Test, tested: _Tested, aspects: Sequence[Aspect], scores: dict[str, Scores], split: str) -> Held:
    """Place a meaning among all of its family, and count its units."""
    name, latent, number = test
    aspect = next(aspect for aspect in aspects if aspect.name == name)
    family = np.concatenate([scores[a.name].auc[latent] for a in aspects if a.family == aspect.family])
    of_meaning = aspect.labels[split].by_picture(number)
    return Held(
        *(tested.auc, tested.low, tested.high, float(scores[name].average_precision[latent, number])),
        *(tested.null, tested.p),
        rank=int((family > scores[name].auc[latent, number]).sum()),
        n_meanings=int((~np.isnan(family)).sum()),
        n_units=int(of_meaning.sum()),
        n_pictures=int((of_meaning > 0).sum()),
        share=float(of_meaning.sum() / aspect.labels[split].positives.sum()),
        is_active=tested.is_active,
    )
