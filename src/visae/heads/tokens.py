"""Final tokens, the way heads read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.vision.model import ModelCard, VisionModel


def open_store(manifest: str | Path, card: ModelCard) -> ActivationStore:
    """Open a store and check that it was made with this model.

    Raises
    ------
    StoreError
        If its tokens or their dimension are not the model's.
    """
    store = ActivationStore.open(manifest)
    layer = min(store.manifest["layer"], card.depth - 1)
    d_model, tokens = card.layers[layer].d_model, card.tokens(layer)
    if store.d_model != d_model or list(store.choice.tokens) != tokens:
        raise StoreError(
            f"{manifest}: {len(store.choice.tokens)} tokens of {store.d_model} values a picture, but "
            f"{card.architecture} at {card.image_size[0]} x {card.image_size[1]} px has {len(tokens)} of {d_model}; "
            "give the store of the same model"
        )
    if not store.choice.is_whole or store.manifest["hook"] != "residual":
        raise StoreError(
            f"{manifest}: heads and edits read the residual stream of whole pictures; this store has hook "
            f"{store.manifest['hook']} and keeps {store.choice.n_rows} of {len(tokens)} tokens"
        )
    return store


@torch.inference_mode()
def final_tokens(
    store: ActivationStore, model: VisionModel, split: str, device: torch.device, batch_images: int = 64
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Walk a split of the last block's store: ids (b,) and final-normed tokens (b, n_tokens, d_model)."""
    for image_ids, tokens in store.iterate(split, batch_images, kinds="all"):
        yield image_ids, model.final_norm(tokens.to(device))
