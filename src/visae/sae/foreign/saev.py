"""saev's checkpoints: a JSON header in the first line, then a torch.save'd state dict.

What each of saev's headers stands for, from src/saev/nn/modeling.py at the commits that wrote it:

- none (saev 0.1.0, of the paper's published SAEs): the header is the settings; x is encoded as
  ReLU(W_enc^T (x - b_dec) + b_enc).
- schema 1: `cls` names the code rule, or `cfg.activation` does. It was written both while b_dec was subtracted and
  after that had stopped, and no entry says which.
- schemas 2 to 5: `cfg.activation` names the code rule; b_dec is not subtracted. (No commit that wrote 3 was found;
  saev's reader takes it as 2 and 4.)

BatchTopK's codes are the pre-activations above `activation.threshold` where the file has one. In schema 2 it keeps the
k largest of each token, as TopK does; in schema 1 it kept k of a whole batch, which is no rule for one token.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.batchtopk import BatchTopK
from visae.sae.foreign.given import filled, row_norms, sae_of
from visae.sae.relu import Relu
from visae.sae.topk import TopK
from visae.sae.variant import Variant, Weights

DecoderBias = Literal["subtracted", "not-subtracted"]
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
_THRESHOLD = "activation.threshold"
_UNDECIDED, _NOT_SUBTRACTED = 1, (2, 3, 4, 5)
_BATCH_TOPK_IS_TOPK = 2


def read_saev(path: Path, decoder_bias: DecoderBias | None = None) -> SparseAutoencoder:
    """Read a checkpoint of saev; it takes the activations that saev's loader gave, not raw ones.

    Where saev keeps negative values among a token's k largest, they are cut at zero here, as in the TopK paper.

    Parameters
    ----------
    decoder_bias
        Whether b_dec is subtracted from what is encoded; left out, what the file's schema stands for.

    Raises
    ------
    ModelError
        If the file is damaged, of a schema or a code rule that is not known, or of schema 1 without `decoder_bias`.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    with path.open("rb") as file:
        first, rest = file.readline(), file.read()
    try:
        header = json.loads(first)
        loaded = torch.load(io.BytesIO(rest), weights_only=True, map_location="cpu")
        tensors: dict[str, Tensor] = {name: tensor.double() for name, tensor in loaded.items()}
        encoder, bias, decoder, b_dec = tensors["W_enc"].T, *(tensors[name] for name in _TENSORS[1:])
        is_subtracted = _is_subtracted(header, decoder_bias, path)
        variant = _rule(header, tensors, path)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a checkpoint of saev: {type(error).__name__}: {error}") from error
    # Rows have unit norm already unless that was turned off; among competing codes norms must not be moved.
    norms = torch.ones(len(decoder)) if isinstance(variant, TopK) else row_norms(decoder)
    bias = bias - encoder @ b_dec if is_subtracted else bias
    return sae_of(variant, Weights(encoder * norms.unsqueeze(1), bias * norms, decoder / norms.unsqueeze(1), b_dec))


def _is_subtracted(header: dict[str, Any], decoder_bias: DecoderBias | None, path: Path) -> bool:
    """Whether b_dec is subtracted from what is encoded."""
    schema = header.get("schema")
    if schema not in (None, _UNDECIDED, *_NOT_SUBTRACTED):
        raise ModelError(
            f"{path}: schema: {schema!r}; allowed: none (saev 0.1.0), {_UNDECIDED} to {_NOT_SUBTRACTED[-1]}"
        )
    if decoder_bias is not None:
        return decoder_bias == "subtracted"
    if schema == _UNDECIDED:
        raise ModelError(
            f"{path}: schema: 1: saev wrote it while it subtracted b_dec from what it encodes, and after that; "
            "the file does not say which, so say it: --decoder-bias subtracted, or --decoder-bias not-subtracted. "
            "If you do not know, import both with --manifests: the smaller normalized_mse is the likelier"
        )
    return schema is None


def _rule(header: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> Variant:
    """Code rule of a header."""
    name, params = _named_rule(header)
    known = set(_TENSORS)
    variant: Variant
    if name == "Relu":
        variant = Relu()
    elif name == "BatchTopK" and _THRESHOLD in tensors:
        known.add(_THRESHOLD)
        variant = BatchTopK(int(params["top_k"]))
        # A threshold of zero or less is none there, and cuts at zero.
        filled(variant.threshold, tensors[_THRESHOLD].clamp(min=0))
    elif name == "TopK" or (name == "BatchTopK" and header["schema"] == _BATCH_TOPK_IS_TOPK):
        variant = TopK(int(params["top_k"]))
    else:
        raise ModelError(
            f"{path}: code rule {name!r} in schema {header['schema']}; allowed: Relu, TopK, and BatchTopK of schema "
            f"{_BATCH_TOPK_IS_TOPK} or with {_THRESHOLD}"
        )
    if unknown := sorted(tensors.keys() - known):
        raise ModelError(f"{path}: tensors that no {name} SAE of saev has: {', '.join(unknown)}")
    return variant


def _named_rule(header: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of a header's code rule, and its parameters."""
    if "schema" not in header:
        return "Relu", {}
    activation = header["cfg"].get("activation")
    if header["schema"] == _UNDECIDED and activation is None:
        return header["cls"], header["cfg"]
    return activation["cls"], activation["params"]
