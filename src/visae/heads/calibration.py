"""Whether a probe is right as often as it says: calibration and proper scores, picture by picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from visae.heads.bootstrap import class_mean, estimates, grouped_means, grouped_sums

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
        """Accuracy, balanced accuracy, top-5, calibration error, log loss and Brier score, (r,) each.

        NaN where a measure says nothing: top-5 of five classes or fewer is 1 whatever the classifier says.
        """
        n = weights.sum(axis=1)
        gaps = grouped_sums(weights, self.found.confidence - self.right, self.bins, BINS)
        found = {
            "accuracy": weights @ self.right / n,
            "balanced_accuracy": class_mean(self.recalls(weights)["recall"]),
            "top5_accuracy": weights @ self.found.in_top / n,
            "calibration_error": np.abs(gaps).sum(axis=1) / n,
            "log_loss": weights @ self.found.log_loss / n,
            "brier": weights @ self.found.brier / n,
        }
        if self.n_classes <= TOP:
            found["top5_accuracy"] = np.full(len(weights), np.nan)
        return found

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
