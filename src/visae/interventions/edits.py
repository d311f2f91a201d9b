"""Editing single latents inside the residual stream.

A patch x becomes x + (new - old) times the latent's direction. What the sparse autoencoder does not
reconstruct stays as it was, so an effect is the latent's and not the reconstruction's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.sae import SparseAutoencoder


def refuse_transcoder(sae: SparseAutoencoder, config: str | Path) -> None:
    """Raise ModelError if what the SAE gives belongs to another layer than what it reads."""
    if sae.is_transcoder:
        raise ModelError(
            f"{config}: a transcoder (target_layer) cannot be edited: its latents' directions belong to another layer "
            "than its codes; edit with an SAE without target_layer"
        )


def edited(
    tokens: Tensor, sae: SparseAutoencoder, latents: Sequence[int], new_values: Sequence[float], patches: Tensor
) -> Tensor:
    """Set latents to new values on chosen patches.

    Parameters
    ----------
    tokens
        (b, n_prefix + n_patches, d_model) raw activations; prefix tokens are never edited.
    sae
        On the same device.
    latents, new_values
        m latents and the code value that each is set to.
    patches
        bool (b, n_patches): the patches to edit.

    Returns
    -------
    Tensor
        Same shape as `tokens`. Where a latent has its new value already, bits are unchanged.
    """
    rows = patch_rows(tokens, patches)
    old = sae.latent_values(rows, list(latents))
    new = torch.as_tensor(new_values, dtype=old.dtype, device=old.device).expand_as(old)
    return with_rows(tokens, patches, moved(rows, value_change(old, new, sae.directions()[list(latents)])))


def value_change(old: Tensor, new: Tensor, directions: Tensor) -> Tensor:
    """Change of the activation (n, d_model) when codes (n, m) go from old to new along directions (m, d_model)."""
    return (new - old) @ directions


def moved(rows: Tensor, change: Tensor) -> Tensor:
    """Rows plus change, each (n, d_model); a value whose change is zero keeps its bits (-0.0 + 0.0 would not)."""
    return torch.where(change != 0, rows + change, rows)


def patch_rows(tokens: Tensor, patches: Tensor) -> Tensor:
    """Chosen patches (n, d_model) of tokens (b, n_prefix + n_patches, d_model), picture after picture."""
    return tokens[:, tokens.shape[1] - patches.shape[1] :][patches]


def with_rows(tokens: Tensor, patches: Tensor, rows: Tensor) -> Tensor:
    """Copy of the tokens whose chosen patches (b, n_patches) are replaced by rows (n, d_model)."""
    result = tokens.clone()
    result[:, tokens.shape[1] - patches.shape[1] :][patches] = rows
    return result
