"""What probes on few latents know of the classes of pictures (visaebench's M4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visae.features.benchmark.measured import Estimate, Metric, by_pictures
from visae.features.benchmark.pictures import Pictures, probe_split, ranked, right_answers, variance_ratios

SIZES = (1, 5, 10, 20, 50, 100)
"""Latents that a probe is given."""


def sparse_probing(pictures: Pictures, seed: int, split_seed: int) -> Metric:
    """M4, sparse_probing_auc: area under accuracy by number of latents, divided by the range of numbers.

    visaebench ranks latents by the classes of all pictures, the tested ones too; `corrected` by those of the pictures
    that the probe learns from.

    Parameters
    ----------
    pictures
        What is looked at.
    seed
        Of the interval.
    split_seed
        visaebench's, of the split and the solver.
    """
    kept = pictures.labelled
    labels = pictures.labels[kept]
    learned, tested = probe_split(labels, split_seed)
    sizes = [size for size in SIZES if size <= pictures.width]
    of_all, of_learned = ratios_of(pictures, [kept, kept[learned]])

    def area(ratios: NDArray[np.float64]) -> Estimate:
        best = ranked(ratios, sizes[-1])
        values = pictures.columns(best).toarray().T[kept]
        right = [right_answers(values[:, :size], labels, learned, tested, split_seed) for size in sizes]
        return by_pictures(lambda weights: _area(sizes, weights @ np.stack(right).T / len(tested)), len(tested), seed)

    return Metric(
        *("sparse_probing_auc", "visaebench", True, area(of_all), area(of_learned), len(tested), "pictures"),
        correction="latents ranked on the pictures that probes learn from",
    )


def ratios_of(pictures: Pictures, among: list[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    """Variance ratios of every latent by class, (width,) each, over several choices of pictures."""
    found = [np.full(pictures.width, -np.inf) for _ in among]
    for latents, values in pictures.dense_blocks():
        for ratios, rows in zip(found, among, strict=True):
            ratios[latents.start : latents.stop] = variance_ratios(values[rows], pictures.labels[rows])
    return found


def _area(sizes: list[int], accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalized area under each row of accuracies (r, sizes); of one size its accuracy."""
    if len(sizes) == 1:
        return accuracies[:, 0]
    return np.asarray(np.trapezoid(accuracies, x=sizes, axis=1) / (sizes[-1] - sizes[0]))
