"""The pictures that a benchmark looks at: their codes, their labels, and visaebench's split of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from visae.data.index import read_index
from visae.features.benchmark.measured import NotMeasured
from visae.features.blocks import read_matching_manifest
from visae.features.image_scores import pooled_blocks
from visae.features.scores import pictures_of

TEST_SHARE = 0.2
"""Share of the pictures that visaebench's probes are scored on."""

# Dense values at once: 64 MB in single precision.
_DENSE = 1 << 24


@dataclass(frozen=True)
class Pictures:
    """Pictures of one split of a data set.

    Attributes
    ----------
    codes
        manifest.json of their codes.
    ids
        image_id of all of them.
    labels
        (n_pictures,) class id; -1 where a picture has none.
    width
        Latents.
    """

    codes: Path
    ids: range
    labels: NDArray[np.int64]
    width: int

    @classmethod
    def read(cls, codes: Path, index: Path, split: str) -> Pictures:
        """Read the labels of a split; StoreError or DataError where the files do not belong together."""
        manifest = read_matching_manifest(codes, index)
        ids = pictures_of(manifest, split, codes)
        labels = read_index(index)["label"][ids.start : ids.stop].fill_null(-1).to_numpy().astype(np.int64)
        return cls(codes, ids, labels, manifest["width"])

    def blocks(self) -> Iterator[tuple[range, csr_array]]:
        """Ranges of latents, each with the largest patch value of every latent and picture, (n_latents, n_pictures)."""
        yield from pooled_blocks(self.codes, self.ids)

    def dense_blocks(self) -> Iterator[tuple[range, NDArray[np.float32]]]:
        """The same in small ranges as dense float32 (n_pictures, n_latents)."""
        step = max(1, _DENSE // max(1, len(self.ids)))
        for latents, matrix in self.blocks():
            for start in range(0, len(latents), step):
                part = matrix[start : start + step]
                yield latents[start : start + step], np.ascontiguousarray(part.toarray().T, dtype=np.float32)

    def columns(self, latents: NDArray[np.integer]) -> csr_array:
        """Values of some latents, one row each in their order, (len(latents), n_pictures)."""
        parts, places = [], []
        for block, matrix in self.blocks():
            here = np.flatnonzero((latents >= block.start) & (latents < block.stop))
            parts.append(matrix[latents[here] - block.start])
            places.append(here)
        order = np.argsort(np.concatenate(places), kind="stable")
        return csr_array(vstack(parts, format="csr")[order])

    def active_latents(self) -> NDArray[np.bool_]:
        """Which latents are active on any of the pictures, (width,)."""
        return np.concatenate([np.diff(matrix.indptr) > 0 for _, matrix in self.blocks()])

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Numbers of those pictures that have a class; NotMeasured where these are of fewer than two classes."""
        found = np.flatnonzero(self.labels >= 0)
        if len(np.unique(self.labels[found])) < 2:
            raise NotMeasured("the pictures have labels of fewer than two classes")
        return found


def probe_split(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split pictures into those that probes learn from and those that they are scored on, as visaebench does.

    Stratified by class only where class ids count up from 0 without a gap and each has two pictures or more.

    Raises
    ------
    NotMeasured
        If there are too few pictures for that.
    """
    from sklearn.model_selection import train_test_split

    stratified = np.bincount(labels).min() >= 2
    try:
        learned, tested = train_test_split(
            np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels if stratified else None, random_state=seed
        )
    except ValueError as error:
        raise NotMeasured(f"too few pictures to split: {error}") from error
    if len(np.unique(labels[learned])) < 2:
        raise NotMeasured("the pictures to learn from are all of one class")
    return learned, tested


def variance_ratios(codes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """F of an analysis of variance of each column (n_pictures, n_latents) by class; the lowest where it is undefined.

    In single precision, as visaebench has it, so that ties are broken alike.
    """
    from sklearn.feature_selection import f_classif

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # latents that are silent
        found, _ = f_classif(codes, labels)
    return np.nan_to_num(found, nan=-np.inf)


def ranked(ratios: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Latents with the k largest ratios, the largest first, ties as visaebench breaks them."""
    return np.argsort(ratios)[::-1][:k]


def right_answers(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    learned: NDArray[np.int64],
    tested: NDArray[np.int64],
    seed: int,
    others: NDArray[np.float32] | None = None,
    iterations: int = 500,
) -> NDArray[np.bool_]:
    """Fit visaebench's probe, a logistic regression on raw features, and say which tested pictures it gets right.

    Parameters
    ----------
    features
        (n_pictures, n_features) that it learns from and, without `others`, is scored on.
    labels
        (n_pictures,).
    learned, tested
        Numbers of pictures.
    seed
        Of the solver.
    others
        (n_pictures, n_features) that it is scored on too.
    iterations
        Of the solver, at most.

    Returns
    -------
    ndarray
        (n_tested,), or (2, n_tested) with `others`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(solver="lbfgs", max_iter=iterations, C=1.0, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(features[learned], labels[learned])
    right = [probe.predict(scored[tested]) == labels[tested] for scored in (features, others) if scored is not None]
    return right[0] if others is None else np.stack(right)
