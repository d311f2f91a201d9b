"""Whether a probe is right as often as it says: calibration and proper scores, picture by picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from visae.heads.bootstrap import Estimate, class_mean, estimates, grouped_means, grouped_sums
from visae.intervals import RESAMPLES

BINS = 15
"""Equally wide bins of confidence, [lower, upper), by which calibration is measured."""

TOP = 5


class Verdicts(NamedTuple):
    """What a classifier says of labelled pictures: numbers a picture, so that no table of probabilities is kept.

    Attributes
    ----------
    truth, predicted
        (n_images,) true and likeliest class.
    confidence
        (n_images,) probability of the likeliest class.
    in_top
        (n_images,) whether the true class is among the TOP likeliest.
    log_loss, brier
        (n_images,) negative log probability of the true class, and squared distance of the probabilities from it.
    """

    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    in_top: np.ndarray
    log_loss: np.ndarray
    brier: np.ndarray


def verdicts(logits: torch.Tensor, truth: torch.Tensor) -> Verdicts:
    """Verdicts of logits (b, n_classes) on pictures whose true classes (b,) are positions in 0..n_classes-1."""
    logits, truth = logits.double(), truth.to(logits.device)
    log_probabilities = logits.log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    confidence, predicted = probabilities.max(dim=1)
    in_top = (logits.topk(min(TOP, logits.shape[1]), dim=1).indices == truth[:, None]).any(dim=1)
    log_loss = -log_probabilities.gather(1, truth[:, None])[:, 0]
    brier = (probabilities - functional.one_hot(truth, logits.shape[1])).square().sum(dim=1)
    columns = (truth, predicted, confidence, in_top.double(), log_loss, brier)
    return Verdicts(*(column.cpu().numpy() for column in columns))


class Judged:
    """Verdicts on all measured pictures, and what is read from them.

    Parameters
    ----------
    parts
        Verdicts, batch after batch.
    n_classes
        Of the classifier.
    """

    def __init__(self, parts: Iterable[Verdicts], n_classes: int) -> None:
        self.found = Verdicts(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        self.n_classes, self.n_images = n_classes, len(self.found.truth)
        self.right = (self.found.truth == self.found.predicted).astype(float)
        self.bins = np.minimum((self.found.confidence * BINS).astype(int), BINS - 1)

    def measures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Accuracy, balanced accuracy, top-5, log loss and Brier score, (r,) each.

        NaN where a measure says nothing: top-5 of five classes or fewer is 1 whatever the classifier says.
        """
        n = weights.sum(axis=1)
        found = {
            "accuracy": weights @ self.right / n,
            "balanced_accuracy": class_mean(self.recalls(weights)["recall"]),
            "top5_accuracy": weights @ self.found.in_top / n,
            "log_loss": weights @ self.found.log_loss / n,
            "brier": weights @ self.found.brier / n,
        }
        if self.n_classes <= TOP:
            found["top5_accuracy"] = np.full(len(weights), np.nan)
        return found

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean over pictures of the absolute gap of confidence and accuracy in their bin.

        Chance opens gaps where there are none, so it is too large, and the more so the fewer pictures there are.
        """
        gaps = grouped_sums(np.ones((1, self.n_images)), self.found.confidence - self.right, self.bins, BINS)
        return float(np.abs(gaps).sum() / self.n_images)

    def rms_calibration_error(self, seed: int, resamples: int = RESAMPLES) -> Estimate:
        """Root of the mean squared gap of confidence and accuracy, without what chance adds to it.

        From the square of each bin's mean gap the variance of that mean is taken away, which leaves the square of the
        true gap in the mean (Bröcker 2012, doi 10.1007/s00382-011-1191-1; Kumar, Liang and Ma 2019, arXiv
        1909.10155). A bin with one picture tells no variance and is left out; NaN where all are. Resampled gaps hold
        chance twice, that of the pictures and that of drawing them, so quantiles of resamples would lie too high. The
        interval is the basic bootstrap's (Davison and Hinkley 1997, section 5.2): how far resamples lie from the
        pictures that they are drawn from, set off from the estimate. Below 0 the square counts as 0.
        """
        gap = self.found.confidence - self.right

        def squares(weights: np.ndarray) -> dict[str, np.ndarray]:
            sums, of_squares, n = (
                grouped_sums(weights, values, self.bins, BINS) for values in (gap, gap**2, np.ones_like(gap))
            )
            mean = sums / np.maximum(n, 1)
            variance = (of_squares / np.maximum(n, 1) - mean**2) / np.maximum(n - 1, 1)
            kept = np.where(n > 1, n, 0)
            plain, debiased = ((kept * square).sum(axis=1) for square in (mean**2, mean**2 - variance))
            with np.errstate(invalid="ignore"):
                return {"plain": plain / kept.sum(axis=1), "debiased": debiased / kept.sum(axis=1)}

        found = estimates(squares, self.n_images, seed, resamples)
        square, drawn_from = found["debiased"], found["plain"].value
        bounds = (square.value, square.value - (square.high - drawn_from), square.value - (square.low - drawn_from))
        return Estimate(*(np.sqrt(np.maximum(bound, 0)) for bound in bounds))

    def recalls(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Recall of each class, (r, n_classes); NaN for a class that no picture has."""
        return {"recall": grouped_means(weights, self.right, self.found.truth, self.n_classes)}

    def reliability(self, seed: int) -> pl.DataFrame:
        """Bins that have pictures: lower, upper, n_images, mean confidence, and accuracy with its interval."""

        def accuracies(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {"accuracy": grouped_means(weights, self.right, self.bins, BINS)}

        found = estimates(accuracies, self.n_images, seed)["accuracy"]
        counts = np.bincount(self.bins, minlength=BINS)
        confidence = np.bincount(self.bins, self.found.confidence, minlength=BINS) / np.maximum(counts, 1)
        return pl.DataFrame(
            {
                "lower": np.arange(BINS) / BINS,
                "upper": np.arange(1, BINS + 1) / BINS,
                "n_images": counts,
                "confidence": confidence,
                "accuracy": found.value,
                "accuracy_low": found.low,
                "accuracy_high": found.high,
            }
        ).filter(pl.col("n_images") > 0)
