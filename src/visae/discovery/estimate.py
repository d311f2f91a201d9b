"""What switching off a latent would do to each class, estimated for all latents at once from backward passes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.arms.dictionaries import attribution
from visae.arms.selection import Selection, own_slopes
from visae.progress import progress_bar
from visae.sae import SparseAutoencoder

# Rows whose dense codes exist at once.
_CHUNK = 1024


def estimated_effects(selection: Selection, n_pictures: int, points: int = 1) -> NDArray[np.float64]:
    """Estimated change of each class's log odds, a unit, were a latent switched off; (n_classes, width).

    To first order a latent's part in a class's log odds is its code times the slope along its direction, summed over
    the patches that the answer is made of; switched off, that much goes. Below 0 the latent supports the class, above
    0 it opposes it. The formula is that of attribution by gradient times activation (Sundararajan et al. 2017, arXiv
    1703.01365, for `points` above 1: the mean of the slopes on the way to the activation without any of its codes).

    Parameters
    ----------
    n_pictures
        Pictures of each class, of the selection split.
    points
        How many points on that way.

    Returns
    -------
    ndarray
        NaN for classes without pictures there.
    """
    task, sae = selection.task, selection.sae
    found = np.full((len(task.classes), sae.width), np.nan)
    with progress_bar(len(task.classes), f"{task.name}: estimates", "classes") as bar:
        for number in range(len(task.classes)):
            total, n_units = torch.zeros(sae.width, dtype=torch.float64, device=task.device), 0
            for tokens, own in selection.units(number, n_pictures):
                total += batch_total(selection, tokens, number, own, points)
                n_units += len(tokens) if own is None else int(own.sum())
            if n_units:
                found[number] = (-total / n_units).cpu().numpy()
            bar.update()
    return found


def batch_total(selection: Selection, tokens: Tensor, number: int, own: Tensor | None, points: int) -> Tensor:
    """Sum over own patches of what goes with each latent, (width,)."""
    task, sae = selection.task, selection.sae
    total = torch.zeros(sae.width, dtype=torch.float64, device=task.device)
    without = None if points == 1 else _from_codes(sae, tokens[:, task.own])
    rows = None
    for point in range(points):
        shifted = tokens.clone()
        if without is not None:
            shifted[:, task.own] -= (point / points) * without
        found, slopes = own_slopes(task, shifted, number, own)
        # Codes are those of the activation itself, wherever the slopes are taken.
        rows = found if rows is None else rows
        for part, slope in zip(rows.split(_CHUNK), slopes.split(_CHUNK), strict=True):
            with torch.inference_mode():
                total += attribution(sae, part, slope).double() * (len(part) / points)
    return total


@torch.no_grad()
def _from_codes(sae: SparseAutoencoder, tokens: Tensor) -> Tensor:
    """The part of tokens (b, n_own, d_model) that their codes make."""
    rows = tokens.flatten(0, 1)
    parts = [sae.change(sae.encode(part), range(sae.width), like=part) for part in rows.split(_CHUNK)]
    return torch.cat(parts).view_as(tokens)
