"""Final tokens, the way heads read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visae.activations.store import ActivationStore
from visae.errors import ModelError, StoreError
from visae.vision.model import ModelCard, VisionModel


def open_store(manifest: str | Path, card: ModelCard, layer: int) -> ActivationStore:
    """Open the store of a model's layer: the last where heads learn, any where patches are edited.

    Raises
    ------
    StoreError
        If it is of another layer, or its tokens or their dimension are not the model's.
    """
    store = ActivationStore.open(manifest)
    found = store.manifest["layer"]
    if found != layer:
        raise StoreError(
            f"{manifest}: tokens of layer {found}, but those of layer {layer} are needed; heads learn from the last "
            f"layer of {card.architecture} (studies: head_layer: {card.depth - 1}), edits read the layer that they "
            "change (studies: layer)"
        )
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


def check_origin(metrics_path: str | Path, metrics: dict[str, Any], card: ModelCard) -> None:
    """Raise ModelError where a head was trained on tokens of other weights than a model has, as far as it says."""
    if metrics.get("model_sha256", card.weights_sha256) != card.weights_sha256:
        raise ModelError(
            f"{metrics_path}: trained on tokens of other weights (model_sha256 {metrics['model_sha256'][:12]}…) than "
            f"those of {card.architecture} ({card.weights_sha256[:12]}…); train the head again from this model's store"
        )


@torch.inference_mode()
def final_tokens(
    store: ActivationStore, model: VisionModel, split: str, device: torch.device, batch_images: int = 64
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Walk a split of the last block's store: ids (b,) and final-normed tokens (b, n_tokens, d_model)."""
    for image_ids, tokens in store.iterate(split, batch_images, kinds="all"):
        yield image_ids, model.final_norm(tokens.to(device))
