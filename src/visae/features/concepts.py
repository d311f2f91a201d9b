"""Latents for classes: chosen on one split, measured on another, beside what chance reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.features.ranking import Entries, Scores, concept_scores
from visae.features.resampling import permutations, picture_weights, resampled_scores
from visae.intervals import RESAMPLES, interval

METRICS = ("f1", "average_precision", "auc")

LATENTS_PER_CLASS = 5
"""Latents that are reported for each class."""

MATCHED_LATENTS = 20
"""Latents of about the same frequency whose mean F1 is what chance reaches."""

BLOCK_CODES = 10_000_000
"""Codes worked on at once: some 1 GB."""

# Ranges of latents with their codes; called once for each split that is read.
Blocks = Callable[[], Iterator[tuple[range, pl.LazyFrame]]]


@dataclass(frozen=True)
class Labels:
    """Classes of the units of a split: of patches, or of whole pictures.

    Attributes
    ----------
    pictures
        image_id of the split's pictures.
    classes
        (n_pictures, n_tokens) class number of each unit, -1 where it has none. Whole pictures have one token, 0.
    n_classes
        Number of classes.
    """

    pictures: range
    classes: NDArray[np.integer]
    n_classes: int

    def of(self, entries: Entries, order: NDArray[np.integer] | None = None) -> NDArray[np.integer]:
        """Class of each code's unit, (n,); with an order, picture i has the labels of picture order[i]."""
        picture = entries.picture if order is None else order[entries.picture]
        return self.classes[picture, entries.token]

    @property
    def positives(self) -> NDArray[np.int64]:
        """(n_classes,) units of each class."""
        return np.bincount(self.classes[self.classes >= 0], minlength=self.n_classes)

    def by_picture(self, class_number: int | None = None) -> NDArray[np.int64]:
        """(n_pictures,) units of a class, or of any class."""
        return (self.classes >= 0 if class_number is None else self.classes == class_number).sum(axis=1)


@dataclass(frozen=True)
class Choice:
    """A latent and threshold chosen for a class, with its scores, by `METRICS`, on the fit split."""

    class_number: int
    rank: int
    latent: int
    threshold_number: int
    fit: tuple[float, float, float]


@dataclass(frozen=True)
class Chosen:
    """What the fit split decides: choices; and of all latents thresholds and predicted units, (width, N_THRESHOLDS)."""

    choices: list[Choice]
    thresholds: NDArray[np.float32]
    predicted: NDArray[np.int64]


@dataclass
class Measured:
    """What the measured split says of the choices; axes: metric, then choice or class.

    Attributes
    ----------
    scores, intervals
        (3, n_choices), and (3, n_choices, 2) over resampled pictures.
    precision, recall
        (n_choices,) at the threshold.
    null
        (n_permutations, 3, n_choices) the same scores after the labels were permuted over pictures.
    largest
        (3, n_classes) the largest score of any latent, of any threshold for F1, chosen or not.
    null_largest
        (n_permutations, 3, n_classes) the same after the labels were permuted.
    matched_f1
        (n_choices,) mean F1 of other latents that are about as often active.
    """

    scores: NDArray[np.float64]
    intervals: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    null: NDArray[np.float64]
    largest: NDArray[np.float64]
    null_largest: NDArray[np.float64]
    matched_f1: NDArray[np.float64]


def choose(blocks: Blocks, labels: Labels, by: str, most: int = LATENTS_PER_CLASS) -> Chosen:
    """Choose the best latents of each class by one of `METRICS`, each with its threshold of the highest F1.

    Of equal thresholds the lower one is taken, of equal latents the lower number. A latent that is silent on the
    class is never chosen, and a class without units has none.

    Parameters
    ----------
    most
        Latents of a class that are chosen, at most.
    """
    thresholds, predicted, candidates = [], [], []
    for latents, codes in blocks():
        entries = Entries.of(codes, latents, labels.pictures)
        classes = labels.of(entries)
        entries, classes = entries[classes >= 0], classes[classes >= 0]
        own = entries.thresholds()
        scores = concept_scores(entries, classes, labels.positives, entries.above(own))
        thresholds.append(own)
        predicted.append(scores.predicted)
        candidates += [
            choice for number in range(labels.n_classes) for choice in _best(scores, number, latents.start, by, most)
        ]
    place = METRICS.index(by)
    choices = []
    for number in range(labels.n_classes):
        best = sorted((c for c in candidates if c.class_number == number), key=lambda c: (-c.fit[place], c.latent))
        choices += [
            Choice(number, rank, found.latent, found.threshold_number, found.fit)
            for rank, found in enumerate(best[:most])
        ]
    return Chosen(choices, np.concatenate(thresholds), np.concatenate(predicted))


def measure(blocks: Blocks, chosen: Chosen, labels: Labels, n_permutations: int, seed: int) -> Measured:
    """Measure the choices on a split that they were not chosen on, and what chance reaches there."""
    choices, n_pictures = chosen.choices, len(labels.pictures)
    latents_of = np.array([choice.latent for choice in choices], dtype=np.int64)
    class_of = np.array([choice.class_number for choice in choices], dtype=np.int64)
    threshold_of = np.array([choice.threshold_number for choice in choices], dtype=np.int64)
    n_choices = len(choices)
    found = Measured(
        scores=np.full((3, n_choices), np.nan),
        intervals=np.full((3, n_choices, 2), np.nan),
        precision=np.full(n_choices, np.nan),
        recall=np.full(n_choices, np.nan),
        null=np.full((n_permutations, 3, n_choices), np.nan),
        largest=np.full((3, labels.n_classes), -np.inf),
        null_largest=np.full((n_permutations, 3, labels.n_classes), -np.inf),
        matched_f1=np.zeros(n_choices),
    )
    matched = [matched_latents(chosen.predicted, choice) for choice in choices]
    orders = permutations(n_pictures, n_permutations, seed)
    weights = picture_weights(n_pictures, RESAMPLES, seed)
    positives = labels.positives
    for latents, codes in blocks():
        entries = Entries.of(codes, latents, labels.pictures)
        own = chosen.thresholds[latents.start : latents.stop]
        here = np.flatnonzero((latents_of >= latents.start) & (latents_of < latents.stop))
        at = latents_of[here] - latents.start, class_of[here], threshold_of[here]
        above = entries.above(own)
        scores = concept_scores(entries, labels.of(entries), positives, above)
        found.scores[:, here] = _scores_at(scores, *at)
        np.maximum(found.largest, _largest(scores), out=found.largest)
        hits, predicted = scores.hits[at], scores.predicted[at[0], at[2]]
        with np.errstate(invalid="ignore", divide="ignore"):
            # Of a latent that is silent on the whole split, recall is 0 and precision does not exist.
            found.precision[here], found.recall[here] = hits / predicted, hits / positives[at[1]]
        for number, (others, numbers) in enumerate(matched):
            inside = (others >= latents.start) & (others < latents.stop)
            f1 = scores.f1[others[inside] - latents.start, class_of[number], numbers[inside]]
            found.matched_f1[number] += f1.sum() / len(others)
        for place in here:
            of_latent = entries.of_latent(latents_of[place] - latents.start)
            found.intervals[:, place] = _intervals(of_latent, labels, choices[place], chosen, weights)
        for number, order in enumerate(orders):
            permuted = concept_scores(entries, labels.of(entries, order), positives, above)
            found.null[number][:, here] = _scores_at(permuted, *at)
            np.maximum(found.null_largest[number], _largest(permuted), out=found.null_largest[number])
    return found


def matched_latents(predicted: NDArray[np.int64], choice: Choice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the other latents that are about as often active as a choice, and the threshold number of each.

    Each latent takes part with that of its thresholds that comes closest to the frequency of the chosen one; the 20
    closest latents are taken, whatever they stand for.
    """
    counts = predicted.astype(np.float64)
    distance = np.abs(np.log(np.maximum(counts, 0.5) / counts[choice.latent, choice.threshold_number]))
    distance[choice.latent] = np.inf
    number = distance.argmin(axis=1)
    nearest = np.argsort(distance.min(axis=1), kind="stable")[: min(MATCHED_LATENTS, len(distance) - 1)]
    return nearest, number[nearest]


def _best(scores: Scores, class_number: int, first_latent: int, by: str, most: int) -> Iterator[Choice]:
    """Candidates of a class among the latents of a block."""
    if scores.positives[class_number] == 0:
        return
    f1 = scores.f1[:, class_number]
    values = np.stack([f1.max(axis=1), scores.average_precision[:, class_number], scores.auc[:, class_number]])
    criterion = np.where(values[0] > 0, values[METRICS.index(by)], -np.inf)
    for latent in np.argsort(-criterion, kind="stable")[:most]:
        if criterion[latent] > -np.inf:
            one, two, three = (float(value) for value in values[:, latent])
            threshold_number = int(f1[latent].argmax())
            yield Choice(class_number, 0, first_latent + int(latent), threshold_number, (one, two, three))


def _scores_at(
    scores: Scores, latents: NDArray[np.int64], classes: NDArray[np.int64], thresholds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scores (3, n) of choices."""
    return np.stack(
        [
            scores.f1[latents, classes, thresholds],
            scores.average_precision[latents, classes],
            scores.auc[latents, classes],
        ]
    )


def _largest(scores: Scores) -> NDArray[np.float64]:
    """Largest score of any latent, (3, n_classes)."""
    return np.stack([scores.f1.max(axis=(0, 2)), scores.average_precision.max(axis=0), scores.auc.max(axis=0)])


def _intervals(
    entries: Entries, labels: Labels, choice: Choice, chosen: Chosen, weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Intervals (3, 2) of a choice, from its latent's codes."""
    classes = labels.of(entries)
    entries, classes = entries[classes >= 0], classes[classes >= 0]
    resampled = resampled_scores(
        entries.picture,
        classes == choice.class_number,
        entries.value > chosen.thresholds[choice.latent, choice.threshold_number],
        entries.runs,
        labels.by_picture(choice.class_number),
        labels.by_picture(),
        weights,
    )
    return np.array([interval(row) for row in resampled])
