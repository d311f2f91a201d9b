"""Nearest neighbours: classes by the vote of the most similar pictures, with nothing trained."""

from __future__ import annotations

import numpy as np
import torch

# Of DINO's evaluation: how fast a neighbour's vote falls with its distance.
TEMPERATURE = 0.07
# Rows that are compared at once, on either side.
_PIECE = 4096


@torch.inference_mode()
def by_neighbours(
    known: np.ndarray, classes: np.ndarray, unknown: np.ndarray, k: int, device: torch.device
) -> np.ndarray:
    """Classes of pictures by the vote of their k nearest known ones, each weighted by exp(cosine / 0.07).

    Parameters
    ----------
    known, classes
        Features float32 (n, d) and classes int64 (n,) from 0.
    unknown
        Features float32 (m, d).
    k
        Neighbours that vote; all where there are fewer.

    Returns
    -------
    ndarray
        int64 (m,).
    """
    labels = torch.from_numpy(classes).to(device)
    n_classes, k = int(classes.max()) + 1, min(k, len(known))
    found = []
    for start in range(0, len(unknown), _PIECE):
        queries = _directions(unknown[start : start + _PIECE], device)
        best = queries.new_full((len(queries), 0), 0.0)
        voters = labels.new_full((len(queries), 0), 0)
        for first in range(0, len(known), _PIECE):
            similarity = queries @ _directions(known[first : first + _PIECE], device).T
            voting = labels[first : first + _PIECE].expand(len(queries), -1)
            best, voters = torch.cat([best, similarity], dim=1), torch.cat([voters, voting], dim=1)
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            voters = voters.gather(1, order)
        votes = queries.new_zeros(len(queries), n_classes)
        votes.scatter_add_(1, voters, (best / TEMPERATURE).exp())
        found.append(votes.argmax(dim=1).cpu())
    return torch.cat(found).numpy()


def _directions(rows: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.array(rows)).to(device), dim=1)
