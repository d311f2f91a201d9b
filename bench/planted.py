"""Activations with a known sparse structure: what all trainers are timed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

FEATURES, ACTIVE = 4096, 24
NOISE = 0.1


def write_planted(path: Path, rows: int, d_model: int, seed: int = 20_260) -> Path:
    """Write float32 (rows, d_model): weighted sums of a few of FEATURES unit directions, and some noise.

    Features are drawn unequally often (as 1 / sqrt of their rank), values are exponential, and the whole has a mean
    square of 1 and a mean of nearly zero, so that no trainer needs to normalize. The seed is no trainer's seed.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = functional.normalize(torch.randn(FEATURES, d_model, generator=generator))
    often = torch.arange(1, FEATURES + 1).rsqrt()
    drawn = torch.multinomial(often, rows * ACTIVE, replacement=True, generator=generator).view(rows, ACTIVE)
    values = 0.5 + torch.empty(rows, ACTIVE).exponential_(generator=generator)
    planted = functional.embedding_bag(drawn, directions, mode="sum", per_sample_weights=values)
    planted /= planted.square().mean().sqrt()
    planted.add_(torch.randn(rows, d_model, generator=generator), alpha=NOISE)
    path.parent.mkdir(parents=True, exist_ok=True)
    planted.numpy().astype(np.float32, copy=False).tofile(path)
    return path
