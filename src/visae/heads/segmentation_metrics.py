"""What a segmentation head says, by patches and by pixels, counted and with intervals."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import torch
from torch.nn import functional

from visae.heads.bootstrap import estimates
from visae.heads.metrics import Tally, confusion_table

LEVELS = ("patch", "pixel")


class SegmentationTally:
    """Predictions counted by patches, against the majority class of each, and by pixels, after bilinear upsampling.

    Parameters
    ----------
    classes
        {"id", "name"} in the order of the logits.
    """

    def __init__(self, classes: list[dict[str, Any]]) -> None:
        self.classes = classes
        self.levels = {level: Tally(len(classes)) for level in LEVELS}

    @torch.inference_mode()
    def add(self, logits: torch.Tensor, patches: torch.Tensor, pixels: torch.Tensor) -> None:
        """Count a batch of pictures.

        Parameters
        ----------
        logits
            (b, n_classes, grid_height, grid_width).
        patches, pixels
            Labels as channels, negative where there is none: (b, n_patches) and (b, height, width), on the CPU.
        """
        predicted = logits.argmax(dim=1).flatten(1).cpu()
        fine = functional.interpolate(logits, pixels.shape[1:], mode="bilinear", align_corners=False)
        self.levels["patch"].add(patches, predicted)
        self.levels["pixel"].add(pixels, fine.argmax(dim=1).cpu())

    @property
    def is_empty(self) -> bool:
        """Whether no patch, or no pixel, had a label."""
        return not all(tally.confusion.any() for tally in self.levels.values())

    def metrics(self, seed: int) -> dict[str, Any]:
        """Entries of metrics.json: accuracy and mIoU at both levels with intervals, and the IoU of each class."""
        found: dict[str, Any] = {}
        for level, tally in self.levels.items():
            measured = estimates(tally.measures, tally.n_images, seed)
            for name in ("miou", "accuracy"):
                found |= measured[name].named(f"{level}_{name}")
        iou = measured["class_iou"].value.tolist()
        by_name = zip(self.classes, iou, strict=True)
        found["class_iou"] = {c["name"]: None if math.isnan(value) else value for c, value in by_name}
        return found | {"n_images": tally.n_images}

    def tables(self, seed: int) -> dict[str, pl.DataFrame]:
        """Return `classes`, a row a level and class, and `confusion`, a row a level and pair of classes."""
        classes, confusions = [], []
        for level, tally in self.levels.items():
            iou = estimates(tally.measures, tally.n_images, seed)["class_iou"]
            confusion = tally.confusion.numpy()
            labelled, hits = confusion.sum(axis=1), confusion.diagonal()
            columns = {
                "level": [level] * len(self.classes),
                "class_id": [c["id"] for c in self.classes],
                "class_name": [c["name"] for c in self.classes],
                "n": labelled,
                "iou": iou.value,
                "iou_low": iou.low,
                "iou_high": iou.high,
                "recall": [hit / n if n else None for hit, n in zip(hits, labelled, strict=True)],
            }
            classes.append(pl.DataFrame(columns).with_columns(pl.col("^iou.*$").fill_nan(None)))
            confusions.append(confusion_table(confusion, self.classes).select(pl.lit(level).alias("level"), pl.all()))
        return {"classes": pl.concat(classes), "confusion": pl.concat(confusions)}
