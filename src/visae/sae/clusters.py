"""Clusters of a sample: directions that latents start from, points that they are combined of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.products import linear

_CHUNK = 8192
_ITERATIONS = 8


def centroids(directions: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Unit centroids (n_clusters, d) of unit vectors (n, d), by spherical k-means from random members."""
    members = torch.randperm(len(directions), generator=generator)[:n_clusters]
    found = directions[members].clone()
    if n_clusters == 0:
        return found
    for _ in range(_ITERATIONS):
        nearest = torch.cat([linear(part, found).argmax(1) for part in directions.split(_CHUNK)])
        sums = torch.zeros_like(found).index_add_(0, nearest, directions)
        # A cluster that has lost all members stays where it is.
        found = normalize(sums + 1e-6 * found)
    return found


def cluster_means(points: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Means (n_clusters, d) of clusters of points (n, d), by k-means from random members: each in the convex hull."""
    found = points[torch.randperm(len(points), generator=generator)[:n_clusters]].clone()
    for _ in range(_ITERATIONS):
        halves = found.square().sum(1) / 2
        nearest = torch.cat([(linear(part, found) - halves).argmax(1) for part in points.split(_CHUNK)])
        sums = torch.zeros_like(found).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=n_clusters).unsqueeze(1)
        # A cluster that has lost all members stays where it is.
        found = torch.where(counts > 0, sums / counts.clamp(min=1), found)
    return found
