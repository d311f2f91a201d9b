"""Final tokens, the way heads read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.vision.model import ModelCard, VisionTransformer


def open_store(manifest: str | Path, card: ModelCard) -> ActivationStore:
    """Open a store and check that it was made with this model.

    Raises
    ------
    StoreError
        If its tokens or their dimension are not the model's.
    """
    store = ActivationStore.open(manifest)
    if store.d_model != card.d_model or list(store.tokens) != card.tokens:
        raise StoreError(
            f"{manifest}: {len(store.tokens)} tokens of {store.d_model} values a picture, but {card.architecture} "
            f"at {card.image_size} px has {len(card.tokens)} of {card.d_model}; give the store of the same model"
        )
    return store


@torch.inference_mode()
def final_tokens(
    store: ActivationStore, model: VisionTransformer, split: str, device: torch.device, batch_images: int = 64
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Walk a split of the last block's store: ids (b,) and final-normed tokens (b, n_tokens, d_model)."""
    for image_ids, tokens in store.iterate(split, batch_images, kinds="all"):
        yield image_ids, model.final_norm(tokens.to(device))
