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
from visae.sae.foreign.given import Given, filled, looks_transposed, row_norms, sae_of
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Variant, Weights
from visae.weights import check_names, check_shapes, check_values

DecoderBias = Literal["subtracted", "not-subtracted"]
_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
_THRESHOLD = "activation.threshold"
_UNDECIDED, _NOT_SUBTRACTED = 1, (2, 3, 4, 5)
_BATCH_TOPK_IS_TOPK = 2
# Every key of every header that was found in saev's history, by where it stands. Sizes and code rule are read; the
# others are of training, or say who wrote the file.
_HEADER = ("schema", "cls", "cfg", "commit", "lib")
_SETTINGS = (
    *("d_vit", "exp_factor", "d_model", "d_sae", "activation", "top_k"),
    *("sparsity_coeff", "l1_coeff", "ghost_grads", "use_ghost_grads", "n_reinit_samples", "seed"),
    *("remove_parallel_grads", "normalize_w_dec", "reinit_blend", "reinit_enc_dec_tranpose"),
)
_RULE, _PARAMS = ("cls", "params"), ("key", "kind", "top_k", "momentum", "sparsity", "aux")


def read_saev(path: Path, decoder_bias: DecoderBias | None = None) -> Given:
    """Read a checkpoint of saev; it takes the activations that saev's loader gave, not raw ones.

    Where saev keeps negative values among a token's k largest, they are cut at zero here, as in the TopK paper.

    Parameters
    ----------
    decoder_bias
        Whether b_dec is subtracted from what is encoded; left out, what the file's schema stands for.

    Raises
    ------
    ModelError
        If the file is damaged, of a schema or a code rule that is not known, has a key or a tensor that is not known,
        or is of schema 1 without `decoder_bias`.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    with path.open("rb") as file:
        first, rest = file.readline(), file.read()
    if first.startswith(b"PK"):
        raise ModelError(
            f"{path}: a file of torch.save without the line of JSON that saev writes first: checkpoints of other "
            "projects are not read; save the SAE as SAELens does, and give the folder"
        )
    try:
        header = json.loads(first)
        loaded = torch.load(io.BytesIO(rest), weights_only=True, map_location="cpu")
        tensors: dict[str, Tensor] = dict(loaded)
        is_subtracted = _is_subtracted(header, decoder_bias, path)
        _refuse_unknown(header, path)
        variant = _rule(header, tensors, path)
        check_values(path, tensors)
        check_shapes(path, tensors, _shapes(header, tensors))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a checkpoint of saev: {type(error).__name__}: {error}") from error
    encoder, bias, decoder, b_dec = (tensors[name].double() for name in _TENSORS)
    encoder = encoder.T
    # Rows have unit norm already unless that was turned off; among competing codes norms must not be moved.
    norms = torch.ones(len(decoder)) if isinstance(variant, TopK) else row_norms(decoder)
    bias = bias - encoder @ b_dec if is_subtracted else bias
    weights = Weights(encoder * norms.unsqueeze(1), bias * norms, decoder / norms.unsqueeze(1), b_dec)
    return Given(sae_of(variant, weights), looks_transposed(path, decoder))


def _refuse_unknown(header: dict[str, Any], path: Path) -> None:
    """Refuse keys that no header of saev has: they may change the codes."""
    settings = header["cfg"] if "schema" in header else header
    parts: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [("cfg.", settings, _SETTINGS)]
    if "schema" in header:
        parts.append(("", header, _HEADER))
    if "activation" in settings:
        rule = settings["activation"]
        parts += [("cfg.activation.", rule, _RULE), ("cfg.activation.params.", rule["params"], _PARAMS)]
    if unknown := sorted(f"{prefix}{key}" for prefix, entries, known in parts for key in entries.keys() - {*known}):
        raise ModelError(
            f"{path}: unknown keys: {', '.join(unknown)}: no saev up to schema {_NOT_SUBTRACTED[-1]} writes them in "
            "its first line, and they may change its codes; save the SAE by a saev that does not"
        )


def _shapes(header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor as the header has it; where it says nothing, as W_enc has it."""
    settings = header["cfg"] if "schema" in header else header
    d_model, width = tensors["W_enc"].shape
    d_model = int(settings.get("d_model", settings.get("d_vit", d_model)))
    stated = d_model * settings["exp_factor"] if "exp_factor" in settings else width
    width = int(settings.get("d_sae", stated))
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_model, width), "W_dec": (width, d_model)}
    return shapes | {"b_enc": (width,), "b_dec": (d_model,), _THRESHOLD: ()}


def _checked_k(params: dict[str, Any], path: Path) -> int:
    k = params["top_k"]
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ModelError(f"{path}: top_k: {k!r}; allowed: a whole number above 0")
    return k


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
    known: tuple[str, ...] = _TENSORS
    variant: Variant
    if name == "Relu":
        variant = Relu()
    elif name == "BatchTopK" and _THRESHOLD in tensors:
        known = (*_TENSORS, _THRESHOLD)
        variant = BatchTopK(_checked_k(params, path))
        # A threshold of zero or less is none there, and cuts at zero.
        filled(variant.threshold, tensors[_THRESHOLD].clamp(min=0))
    elif name == "TopK" or (name == "BatchTopK" and header["schema"] == _BATCH_TOPK_IS_TOPK):
        variant = TopK(_checked_k(params, path))
    else:
        raise ModelError(
            f"{path}: code rule {name!r} in schema {header['schema']}; allowed: Relu, TopK, and BatchTopK of schema "
            f"{_BATCH_TOPK_IS_TOPK} or with {_THRESHOLD}"
        )
    check_names(path, tensors, known, of=f"{name} SAE of saev")
    return variant


def _named_rule(header: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of a header's code rule, and its parameters."""
    if "schema" not in header:
        return "Relu", {}
    activation = header["cfg"].get("activation")
    if header["schema"] == _UNDECIDED and activation is None:
        return header["cls"], header["cfg"]
    return activation["cls"], activation["params"]
