"""Codes of a dictionary on the drawn pictures of a split, and how well they tell each meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.audit.meanings import Aspect, Drawn
from visae.features.blocks import codes_by_latents
from visae.features.codes import read_codes_manifest
from visae.features.concepts import BLOCK_CODES
from visae.features.image_scores import pooled as pooled_codes
from visae.features.purity import labels_at, strongest
from visae.features.ranking import Entries, concept_scores

Block = tuple[range, Entries]


@dataclass(frozen=True)
class Dictionary:
    """A dictionary by its codes.

    Attributes
    ----------
    codes
        manifest.json of them.
    drawn
        Pictures that are looked at, by split.
    """

    codes: Path
    drawn: Drawn

    @property
    def width(self) -> int:
        """Latents, active or not."""
        return int(read_codes_manifest(self.codes)["width"])

    def lazy_blocks(self, split: str, pooled: bool) -> Iterator[tuple[range, pl.LazyFrame]]:
        """Yield ranges of latents with their codes of patches, or the largest of a picture; pictures from 0."""
        ids = self.drawn[split]
        places = pl.DataFrame({"image_id": ids, "place": range(len(ids))}).cast(pl.Int32).lazy()
        for latents, codes in codes_by_latents(self.codes, BLOCK_CODES, None if pooled else "patches"):
            # Row groups outside are skipped.
            near = codes.filter(pl.col("image_id").is_between(int(ids[0]), int(ids[-1])))
            own = near.join(places, on="image_id").select(
                pl.col("place").alias("image_id"), *("token", "latent", "value")
            )
            yield latents, pooled_codes(own, "max") if pooled else own

    def blocks(self, split: str, pooled: bool) -> Iterator[Block]:
        """Yield the same, collected and sorted."""
        for latents, codes in self.lazy_blocks(split, pooled):
            yield latents, Entries.of(codes, latents, range(len(self.drawn[split])))


@dataclass
class Scores:
    """How well each latent (first axis) tells each value of an aspect (second axis) on a split.

    Attributes
    ----------
    auc, average_precision, f1
        float32 (width, n_values); NaN where no unit has the value, or, of the area, all have. F1 is that of the best
        of some thresholds, and empty where it was not asked for.
    """

    auc: NDArray[np.float32]
    average_precision: NDArray[np.float32]
    f1: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Those of ranges of latents, one after the other."""
        columns = ("auc", "average_precision", "f1")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def scores_of_block(entries: Entries, aspect: Aspect, split: str, with_f1: bool = False) -> Scores:
    """Score a range of latents for all values of an aspect."""
    labels = aspect.labels[split]
    classes = labels.of(entries)
    known, classes = entries[classes >= 0], classes[classes >= 0]
    above = known.above(known.thresholds()) if with_f1 else []
    scores = concept_scores(known, classes, labels.positives, above)
    f1 = scores.f1.max(axis=2) if with_f1 else np.empty((0, 0))
    return Scores(*(values.astype(np.float32) for values in (scores.auc, scores.average_precision, f1)))


def fitted(dictionary: Dictionary, aspects: Sequence[Aspect], split: str) -> tuple[dict[str, Scores], NDArray]:
    """Scores by aspect on the split that proposals are made on, and which latents are active there, bool (width,)."""
    active = np.zeros(dictionary.width, dtype=bool)
    parts: dict[str, list[Scores]] = {aspect.name: [] for aspect in aspects}
    for pooled in sorted({aspect.pooled for aspect in aspects}):
        for latents, entries in dictionary.blocks(split, pooled):
            active[latents.start : latents.stop] |= np.diff(entries.starts) > 0
            for aspect in aspects:
                if aspect.pooled == pooled:
                    parts[aspect.name].append(scores_of_block(entries, aspect, split, with_f1=True))
    return {name: Scores.joined(own) for name, own in parts.items()}, active


def most_frequent(
    dictionary: Dictionary, aspect: Aspect, split: str, n_exemplars: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Most frequent value among each latent's strongest pictures, (width,), -1 for none, and its share of these.

    Of classes of patches it is the strongest patch of each picture that is asked. Of equally frequent values it is the
    first.
    """
    values, shares = [], []
    labels = aspect.labels[split]
    for latents, codes in dictionary.lazy_blocks(split, aspect.pooled):
        picture, token, _ = strongest(codes, latents, labels.pictures, n_exemplars)
        own = labels_at(labels, picture, token)
        counts = np.stack([(own == number).sum(axis=1) for number in range(labels.n_classes)], axis=1)
        values.append(np.where(counts.any(axis=1), counts.argmax(axis=1), -1))
        # Of so many as were asked for: who has only one exemplar is not sure of it.
        shares.append(counts.max(axis=1) / n_exemplars)
    return np.concatenate(values), np.concatenate(shares)
