"""Probes that are trained again: on equally many pictures of each group, or on pictures without some latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from visae.config.heads import ProbeSettings
from visae.edits.edit import Edit, Site, edited
from visae.groups.pictures import Grouped
from visae.heads.probe import pooled
from visae.heads.solvers import SOLVERS, choose_c, chosen_solver
from visae.sae import SparseAutoencoder
from visae.tasks.classification import Classification

SETTINGS = ProbeSettings()
"""Penalties that are tried, as the task's own probe tries them by default."""


@dataclass(frozen=True)
class Reader:
    """Reads what a probe reads of pictures, unedited or with latents switched off in all of them."""

    task: Classification
    sae: SparseAutoencoder
    layer: int

    @torch.inference_mode()
    def features(self, image_ids: NDArray[np.int64], latents: Sequence[int] = ()) -> NDArray[np.float32]:
        """Pooled final tokens, (n, n_features).

        Parameters
        ----------
        latents
            That are set to 0 on all tokens that the SAE is of.
        """
        site, edit = Site(self.layer, self.sae), Edit(self.layer, tuple(latents))
        parts = []
        for _, tokens in self.task.batches(image_ids):
            tokens = edited(tokens, edit, site, self.task.n_prefix) if latents else tokens  # noqa: PLW2901
            final = self.task.resume(tokens)
            parts.append(pooled(final, self.task.n_prefix, self.task.probe.pooling).cpu().numpy())
        return np.concatenate(parts)


@dataclass(frozen=True)
class Readout:
    """A linear classifier of class numbers; those that it has not learned have a bias of minus infinity."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def right(self, features: NDArray[np.float32], truth: NDArray[np.int64]) -> NDArray[np.float64]:
        """Whether the likeliest class of each picture is the true one, (n,)."""
        return ((features @ self.weight.T + self.bias).argmax(axis=1) == truth).astype(np.float64)


def fitted(
    features: NDArray[np.float32], truth: NDArray[np.int64], n_classes: int, seed: int, c: float | None = None
) -> tuple[Readout, float]:
    """Fit a probe as tasks have it; returns it, and the inverse strength of its penalty.

    Parameters
    ----------
    truth
        (n,) class numbers, two of them at least.
    c
        Left out, it is chosen on a held-out part.
    """
    known, classes = np.unique(truth, return_inverse=True)
    solver, cpu = SOLVERS[chosen_solver(SETTINGS.solver, features.size)], torch.device("cpu")
    if c is None:
        c, _ = choose_c(features, classes, SETTINGS, seed, solver, cpu)
    found = solver(features, np.arange(len(classes)), classes, c, SETTINGS.max_iterations, cpu)
    weight, bias = np.zeros((n_classes, features.shape[1])), np.full(n_classes, -np.inf)
    weight[known], bias[known] = found
    return Readout(weight, bias), c


def balanced_readout(
    features: NDArray[np.float32], pictures: Grouped, n_classes: int, draws: int, seed: int
) -> Readout:
    """Fit a probe on equally many pictures of each group and class: the mean of probes of several draws.

    Only the last layer is retrained, on data in which the groups are balanced (Kirichenko et al. 2022, arXiv
    2204.02937), where the mean over draws is taken as well.

    Parameters
    ----------
    features
        (n, n_features) of the pictures.
    """
    places = [pictures.of_cell(cell) for cell in pictures.cells]
    least = min(map(len, places))
    c, found = None, []
    for draw in range(draws):
        generator = np.random.default_rng([seed, draw, 33])
        rows = np.concatenate([generator.choice(own, size=least, replace=False) for own in places])
        readout, c = fitted(features[rows], pictures.truth[rows], n_classes, seed, c)
        found.append(readout)
    return Readout(np.mean([one.weight for one in found], axis=0), np.mean([one.bias for one in found], axis=0))


def few_enough(pictures: Grouped, most: int, seed: int) -> Grouped:
    """Keep so many pictures of each group and class that there are `most` at most, but one of each at least."""
    each = max(most // max(len(pictures.cells), 1), 1)
    generator = np.random.default_rng([seed, 34])
    kept = [generator.permutation(pictures.of_cell(cell))[:each] for cell in pictures.cells]
    return pictures.at(np.sort(np.concatenate(kept)))
