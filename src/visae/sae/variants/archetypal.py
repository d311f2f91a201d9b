"""Archetypal: decoder rows are combinations of data points (Fel et al. 2025, arXiv 2502.12892)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visae.config.settings import ArchetypalSettings
from visae.errors import TrainingError
from visae.sae.clusters import cluster_means
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Step, Weights, checked_k

# How much more than all other points together a latent's first point weighs at the start.
_FIRST_SHARE = 8.0
# Below this norm a combination has no direction.
_LEAST_NORM = 1e-6


class Archetypal(TopK):
    """TopK whose dictionary stays within the data: archetypes are convex combinations of points, A = S C.

    C (points, d_target) are the means of clusters of a sample, in normalized units; S (width, points) is the softmax
    of free numbers. With `relaxation` an archetype may leave the convex hull by a vector of bounded norm (the paper's
    RA-SAE). Decoder rows are the archetypes' directions: here all rows have unit norm, so that codes mean
    the same for every variant. Two trainings then find much the same dictionary, and none outside the data.

    Parameters
    ----------
    width, d_target, points
        Shapes.
    k, auxk, auxk_weight
        As of `TopK`.
    relaxation
        Largest norm of the departure, as a share of the points' mean norm.

    Attributes
    ----------
    logits
        (width, n_points), the softmax of a row is its combination.
    departures
        (width, d_target), where `relaxation` is above 0.
    points
        (n_points, d_target).
    """

    name = "archetypal"
    points: Tensor

    def __init__(
        self,
        width: int,
        d_target: int,
        points: int,
        k: int,
        auxk: int = 0,
        auxk_weight: float = 0.0,
        relaxation: float = 0.0,
    ) -> None:
        super().__init__(k, auxk, auxk_weight)
        self.relaxation = relaxation
        self.logits = nn.Parameter(torch.zeros(width, points))
        if relaxation:
            self.departures = nn.Parameter(torch.zeros(width, d_target))
        self.register_buffer("points", torch.zeros(points, d_target))

    @classmethod
    def from_settings(cls, settings: ArchetypalSettings, width: int, d_model: int) -> Archetypal:  # type: ignore[override]
        """Variant for training; raises ConfigError if k is larger than the number of latents."""
        k = checked_k(settings.k, width)
        return cls(width, d_model, settings.points, k, settings.auxk, settings.auxk_weight, settings.relaxation)

    def options(self) -> dict[str, Any]:
        """Return k, the shapes and the relaxation."""
        (width, points), d_target = self.logits.shape, self.points.shape[1]
        shapes = {"width": width, "d_target": d_target, "points": points}
        return {**shapes, "k": self.k, "relaxation": self.relaxation}

    def archetypes(self) -> Tensor:
        """Combinations of points, with what they depart from the hull, (width, d_target)."""
        combined = self.logits.softmax(1) @ self.points
        return combined + self.departures if self.relaxation else combined

    def start(self, weights: Weights, inputs: Tensor, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Take the points from a sample of what comes out (n, d_target), and one of them, mostly, for each latent.

        Raises
        ------
        TrainingError
            If the sample has fewer tokens than there are points.
        """
        width, n_points = self.logits.shape
        if len(inputs) < n_points:
            raise TrainingError(f"saes.*.points: {n_points}, but the sample has {len(inputs)} tokens; lower it")
        self.points.copy_(cluster_means(inputs if target is None else target, n_points, generator))
        # Each point is first in turn; among equals, what else is mixed in differs.
        first = torch.arange(width) % n_points
        logits = 0.5 * torch.randn(width, n_points, generator=generator)
        logits[torch.arange(width), first] = logits.logsumexp(1) + torch.tensor(_FIRST_SHARE).log()
        self.logits.detach().copy_(logits)
        self.project(weights)
        if target is None:
            weights.encoder.copy_(weights.decoder)

    def project(self, weights: Weights) -> None:
        """Bound the departures, and make the decoder rows the directions of the archetypes."""
        if self.relaxation:
            departures = self.departures.detach()
            bound = self.relaxation * torch.linalg.vector_norm(self.points, dim=1).mean()
            norms = torch.linalg.vector_norm(departures, dim=1, keepdim=True)
            departures.mul_((bound / norms.clamp(min=_LEAST_NORM)).clamp(max=1))
        archetypes = self.archetypes().detach()
        weights.decoder.copy_(archetypes / _norms(archetypes))

    def step(self, weights: Weights, inputs: Tensor, number: int, dead: Tensor, target: Tensor | None = None) -> Step:
        """Loss and gradients of one batch; see `Variant.step`. The decoder's gradient goes to what makes its rows."""
        done = super().step(weights, inputs, number, dead, target)
        shares = self.logits.detach().softmax(1)
        archetypes = self.archetypes().detach()
        # Through the division by the norm: what is along the unit row is lost.
        rows, norms = archetypes / _norms(archetypes), _norms(archetypes)
        along = torch.linalg.vecdot(done.gradients.decoder, rows).unsqueeze(1)
        gradient = done.gradients.decoder.addcmul(along, rows, value=-1).div_(norms)
        # Through the softmax: dS * S minus S times the row's sum of it.
        weighted = shares * (gradient @ self.points.T)
        logits_gradient = weighted - shares * weighted.sum(1, keepdim=True)
        own = (logits_gradient, gradient) if self.relaxation else (logits_gradient,)
        gradients = done.gradients._replace(decoder=torch.zeros_like(gradient))
        return Step(done.codes, done.error, done.losses, gradients, own)


def _norms(archetypes: Tensor) -> Tensor:
    """Norms (width, 1), none of them zero."""
    return torch.linalg.vector_norm(archetypes, dim=1, keepdim=True).clamp(min=_LEAST_NORM)
