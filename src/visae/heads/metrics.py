"""Confusion matrices, what is read from them, and how sure one can be of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch

from visae.heads.bootstrap import class_mean
from visae.intervals import ratios


def confusion_matrix(labels: torch.Tensor, predictions: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Count pairs of label (row) and prediction (column), int64 (n_classes, n_classes).

    Parameters
    ----------
    labels
        Integers of any shape; negative ones are unlabelled and left out.
    predictions
        Integers of the same shape in 0..n_classes-1.
    """
    labelled = labels >= 0
    pairs = labels[labelled].long() * n_classes + predictions[labelled].long()
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)


def class_iou(confusion: torch.Tensor) -> torch.Tensor:
    """Intersection over union per class, float64 (n_classes,); NaN for a class that no label carries.

    A class that is predicted but never labelled has no IoU of its own: its false positives already lower
    the IoU of the classes that they were taken from.
    """
    hits = confusion.diagonal().double()
    labelled = confusion.sum(dim=1).double()
    union = labelled + confusion.sum(dim=0).double() - hits
    return torch.where(labelled > 0, hits / union.clamp(min=1), torch.nan)


def mean_iou(confusion: torch.Tensor) -> float:
    """Mean IoU over the classes that occur in the labels."""
    return float(class_iou(confusion).nanmean())


class Tally:
    """Counts of labelled elements (patches or pixels) picture by picture, from which pictures can be resampled.

    Attributes
    ----------
    confusion
        int64 (n_classes, n_classes) of all pictures.
    """

    def __init__(self, n_classes: int) -> None:
        self.confusion = torch.zeros(n_classes, n_classes, dtype=torch.int64)
        self._counts: list[np.ndarray] = []

    def add(self, labels: torch.Tensor, predictions: torch.Tensor) -> None:
        """Count a batch of pictures (b, ...): labels as in `confusion_matrix`, and predictions."""
        for label, prediction in zip(labels, predictions, strict=True):
            found = confusion_matrix(label, prediction, len(self.confusion))
            self.confusion += found
            self._counts.append(torch.stack([found.diagonal(), found.sum(dim=1), found.sum(dim=0)]).numpy())

    @property
    def n_images(self) -> int:
        """Pictures counted."""
        return len(self._counts)

    def measures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Accuracy and mean IoU (r,), IoU of each class (r, n_classes), for weights (r, n_images) of pictures."""
        hits, labelled, predicted = np.stack(self._counts, axis=1).astype(np.float64)
        union = weights @ labelled + weights @ predicted - weights @ hits
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = np.where(weights @ labelled > 0, weights @ hits / union, np.nan)
        return {
            "accuracy": ratios(hits.sum(axis=1), labelled.sum(axis=1), weights),
            "miou": class_mean(iou),
            "class_iou": iou,
        }


def confusion_table(confusion: np.ndarray, classes: list[dict[str, Any]]) -> pl.DataFrame:
    """Return one row a pair of label and prediction that occurs, and one for every class with itself.

    Columns: label_id, label_name, predicted_id, predicted_name, n.
    """
    rows, columns = np.nonzero(confusion + np.eye(len(classes), dtype=confusion.dtype))
    ids, names = (np.array([c[key] for c in classes]) for key in ("id", "name"))
    table = {"label_id": ids[rows], "label_name": names[rows], "predicted_id": ids[columns]}
    table |= {"predicted_name": names[columns], "n": confusion[rows, columns]}
    return pl.DataFrame(table)
