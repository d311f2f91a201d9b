"""One edit of one picture: final tokens before and after, and after random changes of the same length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visae.arms.directions import random_vectors
from visae.edits.edit import Edit, Site, edited, moved, of_length, patch_rows, with_rows
from visae.errors import DataError
from visae.vision.model import VisionModel

DRAWS = 8
"""Random changes that are drawn."""


@dataclass(frozen=True, eq=False)
class Passes:
    """Final tokens of one picture.

    Attributes
    ----------
    before, after
        (1, n_tokens, d_final).
    control
        (DRAWS, n_tokens, d_final): the same tokens changed by the same lengths, along directions drawn at random.
    """

    before: Tensor
    after: Tensor
    control: Tensor


@torch.inference_mode()
def passes_of(model: VisionModel, site: Site, tokens: Tensor, edit: Edit, patches: Tensor, seed: int = 0) -> Passes:
    """Resume the network from an edited layer.

    Parameters
    ----------
    tokens
        (1, n_tokens, d_model) of the layer, unedited.
    edit
        Where it is done: on the tokens of `patches`, a mask over the last ones, bool (n_patches,) or (n_tokens,).

    Raises
    ------
    DataError
        If the edit does not fit, or changes nothing.
    """
    chosen = patches[None].to(tokens.device)
    after = edited(tokens, edit, site, model.card.n_prefix)
    rows = patch_rows(tokens, chosen)
    lengths = (patch_rows(after, chosen) - rows).norm(dim=1, keepdim=True)
    if not lengths.any():
        raise DataError(
            f"dose: 0: latents {list(edit.latents)} are silent on all chosen tokens, so that suppressing them changes "
            "nothing; choose tokens on which they are active, or another dose"
        )
    controls = []
    for direction in random_vectors(DRAWS, rows.shape[1], seed, 0).to(rows):
        change = of_length(direction.expand_as(rows), lengths, rows)
        controls.append(with_rows(tokens, chosen, moved(rows, change)))
    final = model.resume(torch.cat([tokens, after, *controls]), edit.layer)
    return Passes(final[:1], final[1:2], final[2:])
