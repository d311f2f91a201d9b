"""Directions that are no latents, as arms: they are treated as if they were one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.activations.store import ActivationStore, Kinds
from visae.arms.changes import SetCoordinate

_BATCH_IMAGES = 64


def random_vectors(draws: int, d_model: int, seed: int, class_id: int) -> Tensor:
    """Directions (draws, d_model) drawn evenly from the sphere; they depend on the class id, not on other classes."""
    generator = np.random.default_rng([seed, class_id, 1])
    return normalize(torch.from_numpy(generator.standard_normal((draws, d_model))).float())


def coordinates(
    store: ActivationStore, split: str, vectors: Tensor, device: torch.device, kinds: Kinds = "patches"
) -> list[SetCoordinate]:
    """Edits along directions (m, d_model), with their means and largest values over all tokens of a kind of a split."""
    unit = normalize(vectors.to(device))
    total, count = torch.zeros(len(unit), dtype=torch.float64, device=device), 0
    largest = torch.full((len(unit),), -torch.inf, device=device)
    for _, tokens in store.iterate(split, _BATCH_IMAGES, kinds):
        along = tokens.flatten(0, 1).to(device) @ unit.T
        total += along.sum(dim=0, dtype=torch.float64)
        largest = torch.maximum(largest, along.amax(dim=0))
        count += len(along)
    mean = total / count
    return [
        SetCoordinate(vector, float(middle), float(top - middle))
        for vector, middle, top in zip(unit, mean, largest, strict=True)
    ]
