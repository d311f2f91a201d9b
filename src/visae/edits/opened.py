"""What an edit is done with: the network that goes on after it, and the SAE whose latents are edited."""

from __future__ import annotations

from pathlib import Path

import torch

from visae.edits.edit import refuse_transcoder
from visae.sae import SparseAutoencoder, load_sae
from visae.vision.model import VisionModel, load_model


def open_edited(
    card: str | Path | None, sae: str | Path, layer: int, device: torch.device
) -> tuple[VisionModel | None, SparseAutoencoder]:
    """Load a model and an SAE, and raise ModelError where the latents or the layer cannot be edited.

    Parameters
    ----------
    card
        The model's card; none where the activations are given and a readout judges them as they are.
    sae
        config.json of the SAE.
    layer
        Whose output is edited.
    device
        Where both shall lie.
    """
    model, dictionary = load_model(card, device) if card else None, load_sae(sae, device)
    refuse_transcoder(dictionary, sae)
    if model is not None:
        model.card.check_editable(layer)
    return model, dictionary
