"""What a latent may be said to mean: the classes and known causes of a data set, and which units have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.data.index import read_classes, read_index
from visae.errors import DataError
from visae.features.concepts import Labels
from visae.features.ground_truth import CAUSES, caused_patches
from visae.features.image_scores import image_classes
from visae.features.scores import patch_classes

PATCHES, PICTURES, CAUSED = "patches", "pictures", "causes"
"""Families of aspects. A latent's meanings are ranked within one, where all are asked of the same units."""

PATCH_CLASS, PICTURE_CLASS = "patch class", "picture class"

Drawn = Mapping[str, NDArray[np.int64]]
"""image_id of the pictures that are looked at, ascending, by split."""


@dataclass(frozen=True)
class Aspect:
    """What units differ in; each of its values is a meaning.

    Attributes
    ----------
    name
        PATCH_CLASS, PICTURE_CLASS or one of CAUSES.
    family
        PATCHES, PICTURES or CAUSED.
    values
        In the order of the numbers in `labels`.
    labels
        By split; pictures are counted from the first that was drawn.
    """

    name: str
    family: str
    values: tuple[str, ...]
    labels: Mapping[str, Labels]

    @property
    def pooled(self) -> bool:
        """Whether whole pictures have it, for which a latent's largest value counts."""
        return self.family == PICTURES


@dataclass(frozen=True)
class Found:
    """A meaning that is known: value `number` of an aspect."""

    aspect: str
    number: int


def known_aspects(index_path: Path, patch_labels: Path | None, min_purity: float, drawn: Drawn) -> list[Aspect]:
    """Aspects of a data set: classes of patches, classes of pictures, known causes of scenes.

    Parameters
    ----------
    index_path
        Index of the data set.
    patch_labels
        Parquet of image_id, token, label, purity; None where it has no masks, or patches are not asked.
    min_purity
        How much of a patch its class, or its object, has to fill.
    drawn
        Pictures.

    Raises
    ------
    DataError
        If pictures have neither classes nor patches with classes.
    """
    classes = dict(sorted(read_classes(index_path).items()))
    found = []
    if patch_labels is not None:
        of_patches = {number: name for number, name in classes.items() if number != 0}
        labels = {
            split: _rows(patch_classes(patch_labels, list(of_patches), min_purity, _span(ids)), ids)
            for split, ids in drawn.items()
        }
        found.append(Aspect(PATCH_CLASS, PATCHES, tuple(of_patches.values()), labels))
    if _all_labelled(index_path, drawn):
        labels = {
            split: _rows(image_classes(index_path, list(classes), _span(ids)), ids) for split, ids in drawn.items()
        }
        found.append(Aspect(PICTURE_CLASS, PICTURES, tuple(classes.values()), labels))
    if patch_labels is not None and (index_path.parent / "pictures" / "causes.parquet").is_file():
        patches = caused_patches(patch_labels, index_path, min_purity)
        found += [_of_cause(patches, cause, drawn, found[0].labels) for cause in CAUSES]
    if not found:
        raise DataError(
            f"{index_path}: its pictures have no classes, neither of their own nor of patches, so that no meaning can "
            "be tested; describe a data set with labels or masks, or leave audit out"
        )
    return found


class Vocabulary:
    """Finds what words mean: `sky` in whichever aspect has it first, `texture: brick` in the one that is named."""

    def __init__(self, aspects: Sequence[Aspect]) -> None:
        self._known: dict[str, Found] = {}
        for aspect in aspects:
            for number, value in enumerate(aspect.values):
                for words in (value, f"{aspect.name}: {value}"):
                    self._known.setdefault(_plain(words), Found(aspect.name, number))

    def find(self, words: str, aspect: str | None = None) -> Found | None:
        """Return the meaning of words, whatever their case, in one aspect where that is named; None for none."""
        return self._known.get(_plain(words if aspect is None else f"{aspect}: {words}"))


def _plain(words: str) -> str:
    return " ".join(words.casefold().replace(":", ": ").split())


def _span(ids: NDArray[np.int64]) -> range:
    """All pictures from the first to the last."""
    return range(int(ids[0]), int(ids[-1]) + 1)


def _rows(labels: Labels, ids: NDArray[np.int64]) -> Labels:
    """Labels of drawn pictures, counted from the first of them."""
    return Labels(range(len(ids)), labels.classes[ids - labels.pictures.start], labels.n_classes)


def _all_labelled(index_path: Path, drawn: Drawn) -> bool:
    """Whether each split has pictures with labels of their own."""
    label = read_index(index_path)["label"]
    return all(label.gather(ids).null_count() < len(ids) for ids in drawn.values())


def _of_cause(patches: pl.DataFrame, cause: str, drawn: Drawn, like: Mapping[str, Labels]) -> Aspect:
    """Aspect of a cause of scenes, which patches on objects have, on the grid of other labels."""
    values = tuple(sorted(patches[cause].unique().to_list()))
    labels = {}
    for split, ids in drawn.items():
        own = patches.filter(pl.col("image_id").is_in(ids.tolist()))
        classes = np.full_like(like[split].classes, -1)
        numbers = own[cause].replace_strict(list(values), range(len(values)), return_dtype=pl.Int16).to_numpy()
        classes[np.searchsorted(ids, own["image_id"].to_numpy()), own["token"].to_numpy()] = numbers
        labels[split] = Labels(range(len(ids)), classes, len(values))
    return Aspect(cause, CAUSED, values, labels)
