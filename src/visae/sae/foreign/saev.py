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

import re
from pathlib import Path
from typing import Any

from visae.errors import ModelError
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, Lost, Parts, checked, oriented, sae_of, sizes
from visae.sae.foreign.places import place_of_layer
from visae.sae.foreign.rules import batchtopk, checked_k, lost_threshold
from visae.sae.foreign.unsaid import DecoderBias, Unsaid
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Variant

_THRESHOLD = "activation.threshold"
_UNDECIDED, _NOT_SUBTRACTED = 1, (2, 3, 4, 5)
_BATCH_TOPK_IS_TOPK, _HAS_THRESHOLD = 2, (4, 5)
# Every key of every header that was found in saev's history, by where it stands. Sizes and code rule are read; the
# others are of training, or say who wrote the file.
_HEADER = ("schema", "cls", "cfg", "commit", "lib")
_SETTINGS = (
    *("d_vit", "exp_factor", "d_model", "d_sae", "activation", "top_k"),
    *("sparsity_coeff", "l1_coeff", "ghost_grads", "use_ghost_grads", "n_reinit_samples", "seed"),
    *("remove_parallel_grads", "normalize_w_dec", "reinit_blend", "reinit_enc_dec_tranpose"),
)
_RULE, _PARAMS = ("cls", "params"), ("key", "kind", "top_k", "momentum", "sparsity", "aux")


ASKS = ("decoder_bias", "k", "threshold")


def recognizes(contents: Contents) -> bool:
    """Whether a line of JSON stands before the tensors."""
    return contents.is_headed


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of a checkpoint; it takes the activations that saev's loader gave, not raw ones.

    Where saev keeps negative values among a token's k largest, they are cut at zero here, as in the TopK paper.

    Raises
    ------
    ModelError
        If it is of a schema or a code rule that is not known, has a key or a tensor that is not known, is of schema 1
        and nothing is said of its decoder bias, or has no such first line at all.
    """
    path, header = contents.path, contents.said
    if not contents.is_headed:
        raise ModelError(f"{path}: without the line of JSON that saev writes first; leave --as saev out")
    try:
        is_subtracted = _is_subtracted(header, unsaid.decoder_bias, path)
        _refuse_unknown(header, path)
        variant, lost = _rule(contents, unsaid)
        tensors = checked(contents, _shapes(contents), (_THRESHOLD,), of=f"{_named_rule(header)[0]} SAE of saev")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a checkpoint of saev: {type(error).__name__}: {error}") from error
    parts = Parts(tensors["W_enc"].T, tensors["b_enc"], tensors["W_dec"], tensors["b_dec"], is_subtracted)
    sae = sae_of(variant, oriented(path, parts, unsaid).weights)
    # As its uploads lie: layer_6/RUN/sae.pt.
    folder = re.fullmatch(r"layer_(\d+)", path.absolute().parents[1].name)
    sae.place = place_of_layer(None, contents.listed.get("layer", folder[1] if folder else None))
    return Given(sae, [], lost)


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


def _shapes(contents: Contents) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor as the header has it; where it says nothing, as the tensors have it."""
    header = contents.said
    settings = header["cfg"] if "schema" in header else header
    width, d_model = sizes(contents, "b_enc", "W_enc", of="SAE of saev")
    d_model = int(settings.get("d_model", settings.get("d_vit", d_model)))
    stated = d_model * settings["exp_factor"] if "exp_factor" in settings else width
    width = int(settings.get("d_sae", stated))
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_model, width), "W_dec": (width, d_model)}
    shapes |= {"b_enc": (width,), "b_dec": (d_model,)}
    return shapes | ({_THRESHOLD: ()} if _named_rule(header)[0] == "BatchTopK" else {})


def _checked_k(contents: Contents, params: dict[str, Any]) -> int:
    return checked_k(contents, params["top_k"], contents.tensors["b_enc"].numel(), "top_k")


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


def _rule(contents: Contents, unsaid: Unsaid) -> tuple[Variant, Lost]:
    """Code rule of a header, and what it has lost."""
    header, path = contents.said, contents.path
    name, params = _named_rule(header)
    if name == "Relu":
        # 0.1.0 normalized activations first; since there are schemas, b_dec is all that centres them.
        return Relu(), Lost("norm" if "schema" not in header else None)
    if name == "BatchTopK" and _THRESHOLD in contents.tensors:
        return batchtopk(_checked_k(contents, params), float(contents.tensors[_THRESHOLD])), Lost()
    if name == "TopK" or (name == "BatchTopK" and header["schema"] == _BATCH_TOPK_IS_TOPK):
        return TopK(_checked_k(contents, params)), Lost()
    if name == "BatchTopK" and header["schema"] in _HAS_THRESHOLD:
        return lost_threshold(contents, unsaid, _checked_k(contents, params))
    raise ModelError(
        f"{path}: code rule {name!r} in schema {header['schema']}; allowed: Relu, TopK, and BatchTopK of schema "
        f"{_BATCH_TOPK_IS_TOPK} or with {_THRESHOLD}"
    )


def _named_rule(header: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of a header's code rule, and its parameters."""
    if "schema" not in header:
        return "Relu", {}
    activation = header["cfg"].get("activation")
    if header["schema"] == _UNDECIDED and activation is None:
        return header["cls"], header["cfg"]
    return activation["cls"], activation["params"]
