"""Quantized codes, as files of overcomplete have them: pre-activations brought to a few levels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visae.sae.variants.given_rule import GivenRule


class Quantized(GivenRule):
    """Each code is the nearest of the levels, or the mean of all, each weighted by softmax(-(distance squared)).

    Parameters
    ----------
    levels
        Values that codes may have.
    is_hard
        Whether it is the nearest one.
    """

    name = "quantized"

    def __init__(self, levels: list[float], is_hard: bool = False) -> None:
        super().__init__()
        self.levels, self.is_hard = levels, is_hard

    def options(self) -> dict[str, Any]:
        """Return the levels, and whether the nearest one is taken."""
        return {"levels": self.levels, "is_hard": self.is_hard}

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model)."""
        pre_activations = torch.addmm(encoder_bias, inputs, encoder.T)
        levels = torch.tensor(self.levels, dtype=inputs.dtype, device=inputs.device)
        # One level after the other: all distances at once would take as many times the memory of the codes.
        distance, nearest = torch.full_like(pre_activations, torch.inf), torch.zeros_like(pre_activations)
        for level in levels:
            found = (pre_activations - level).square()
            nearest = torch.where(found < distance, level, nearest)
            distance = torch.minimum(found, distance)
        if self.is_hard:
            return nearest.relu()
        total, weighted = torch.zeros_like(pre_activations), torch.zeros_like(pre_activations)
        for level in levels:
            weight = (distance - (pre_activations - level).square()).exp()
            total, weighted = total + weight, weighted + weight * level
        return (weighted / total).relu()
