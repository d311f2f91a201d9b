"""saev's checkpoints: a JSON header in the first line, then a torch.save'd state dict.

The header of saev 0.1.0 holds settings alone; there an activation x is encoded as ReLU(W_enc^T (x - b_dec) + b_enc).
Later ones have a `schema`. In schema 2 b_dec is no longer subtracted, and `cfg.activation` names the code rule, where
BatchTopK keeps the k largest of each token, as TopK does. What schemas 1, 3, 4 and 5 encode is not established here.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.foreign.given import row_norms, sae_of
from visae.sae.relu import Relu
from visae.sae.topk import TopK
from visae.sae.variant import Variant, Weights

_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")


def read_saev(path: Path) -> SparseAutoencoder:
    """Read a checkpoint of saev; it takes the activations that saev's loader gave, not raw ones.

    Where saev keeps negative values among a token's k largest, they are cut at zero here, as in the TopK paper.

    Raises
    ------
    ModelError
        If the file is damaged or of a schema that is not known.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    with path.open("rb") as file:
        first, rest = file.readline(), file.read()
    try:
        header = json.loads(first)
        loaded = torch.load(io.BytesIO(rest), weights_only=True, map_location="cpu")
        tensors: dict[str, Tensor] = {name: loaded[name].double() for name in _TENSORS}
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a checkpoint of saev: {type(error).__name__}: {error}") from error
    variant, subtracted = _rule(header, path)
    encoder, decoder, decoder_bias = tensors["W_enc"].T, tensors["W_dec"], tensors["b_dec"]
    # Rows have unit norm already unless that was turned off; among competing codes norms must not be moved.
    norms = torch.ones(len(decoder)) if isinstance(variant, TopK) else row_norms(decoder)
    bias = tensors["b_enc"] - encoder @ decoder_bias if subtracted else tensors["b_enc"]
    return sae_of(
        variant, Weights(encoder * norms.unsqueeze(1), bias * norms, decoder / norms.unsqueeze(1), decoder_bias)
    )


def _rule(header: dict[str, Any], path: Path) -> tuple[Variant, bool]:
    """Code rule of a header, and whether b_dec is subtracted from what is encoded."""
    if "schema" not in header:
        return Relu(), True
    if header["schema"] != 2:
        raise ModelError(f"{path}: schema: {header['schema']!r}; allowed: none (saev 0.1.0), 2")
    activation = header["cfg"]["activation"]
    if activation["cls"] == "Relu":
        return Relu(), False
    if activation["cls"] in ("TopK", "BatchTopK"):
        return TopK(int(activation["params"]["top_k"])), False
    raise ModelError(f"{path}: cfg.activation.cls: {activation['cls']!r}; allowed: Relu, TopK, BatchTopK")
