"""Confusion matrices and what is read from them."""

from __future__ import annotations

import torch


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


def accuracy(confusion: torch.Tensor) -> float:
    """Share of labelled elements that were predicted right; NaN where nothing is labelled."""
    return float(confusion.diagonal().sum() / confusion.sum())
