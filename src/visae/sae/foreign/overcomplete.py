"""State dicts of overcomplete (0.3.0).

The code of x is made of ReLU(W x + b), with W and b in `encoder.final_block`; classes and what their state dicts lose:

- SAE (all of it), TopKSAE (its k), BatchTopKSAE (its threshold; its k is of a whole batch) have the same tensors.
- JumpSAE (`thresholds`, their logarithms): values from the threshold on.
- QSAE (`Q`): W x + b brought to levels, softly or (lost) to the nearest one.
- RATopKSAE and RAJumpSAE: rows of the dictionary are combinations of points, W C + Relax; the bound of Relax is lost.
- MpSAE and OMPSAE have a dictionary alone: matching pursuit of k steps (lost).

A tied encoder is the dictionary itself. Rows of a dictionary are normalized when it is put in eval mode (in l2 if
nothing else was asked for, which is lost too), and multiplied by exp(`multiplier`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.notices import Notice
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, Lost, Parts, checked, oriented, sae_of
from visae.sae.foreign.rules import checked_k, jumprelu, lost_threshold, topk
from visae.sae.foreign.unsaid import CodeRule, Rows, Unsaid
from visae.sae.variants.pursuit import MatchingPursuit, OrthogonalMatchingPursuit
from visae.sae.variants.quantized import Quantized
from visae.sae.variants.relu import Relu
from visae.sae.variants.variant import Variant

_ENCODERS = ("encoder.final_block.0.weight", "encoder.weight")
_BIASES = ("encoder.final_block.0.bias", "encoder.bias")
# Of a layer norm after the encoder's product, of a batch norm, and of blocks before it.
_OTHERS = ("encoder.final_block.1.", "encoder.mlp_blocks.", "encoder.attention_blocks.", "encoder.resnet_blocks.")
# An encoder that is the dictionary lists its tensors again.
_TIED = "encoder.tied_to."
_PLAIN, _ARCHETYPAL = ("dictionary._weights",), ("dictionary.W", "dictionary.C", "dictionary.Relax")
_OWN = ("thresholds", "Q")
_PURSUITS = {"matching-pursuit": MatchingPursuit, "orthogonal-matching-pursuit": OrthogonalMatchingPursuit}
# How far rows may be from the norm that the last step before saving took them off.
_NEAR, _NOTHING = 0.05, 1e-8
_NAMED_BY = ("activation", "sae_type", "architecture")
ASKS = ("code", "k", "threshold", "rows", "delta")


def recognizes(contents: Contents) -> bool:
    """Whether there is one of its dictionaries."""
    return not contents.is_headed and any({*names} <= contents.tensors.keys() for names in (_PLAIN, _ARCHETYPAL))


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of a state dict.

    Raises
    ------
    ModelError
        If it is damaged, has an encoder that is more than one product, or does not say what nobody has said.
    """
    of = "SAE of overcomplete"
    if not recognizes(contents):
        raise ModelError(
            f"{contents.path}: {_PLAIN[0]!r}, or else {', '.join(map(repr, _ARCHETYPAL))}, is missing for {of}"
        )
    if deep := sorted(name for name in contents.tensors if name.startswith(_OTHERS)):
        raise ModelError(
            f"{contents.path}: {deep[0]}: an encoder of several layers, which no code rule here has; only SAEs whose "
            "encoder is one product with its bias are read"
        )
    tied = {name for name in contents.tensors if name.startswith(_TIED)}
    contents = replace(contents, tensors={name: contents.tensors[name] for name in contents.tensors.keys() - tied})
    optional = {*_ENCODERS, *_BIASES, *_OWN, "dictionary.multiplier"} - _required(contents, is_tied=bool(tied))
    tensors = checked(contents, _shapes(contents), optional, of=of)
    notices: list[Notice] = []
    rows = tensors[_PLAIN[0]] if _PLAIN[0] in tensors else _combined(tensors, unsaid, notices)
    width, d_model = rows.shape
    encoder = next((tensors[name] for name in _ENCODERS if name in tensors), None)
    nothing = torch.zeros(width, dtype=torch.float64)
    bias = next((tensors[name] for name in _BIASES if name in tensors), nothing)
    parts = Parts(rows if encoder is None else encoder, bias, rows, torch.zeros(d_model, dtype=torch.float64), False)
    parts = oriented(contents.path, parts, unsaid)
    decoder = _normalized(contents, parts.decoder, unsaid.rows) if _PLAIN[0] in tensors else parts.decoder
    decoder = decoder * tensors.get("dictionary.multiplier", nothing[0]).exp()
    parts = replace(parts, encoder=decoder if encoder is None else parts.encoder, decoder=decoder)
    has_encoder = bool(tied) or encoder is not None
    rule, lost = _rule(contents, tensors, unsaid, has_encoder)
    return Given(sae_of(rule, parts.weights), notices, lost)


def _required(contents: Contents, is_tied: bool) -> set[str]:
    """Tensors of an encoder that others of it must have beside them; a pursuit has no encoder."""
    linear = {_ENCODERS[0], _BIASES[0]}
    if linear & contents.tensors.keys():
        return linear
    return {_ENCODERS[1]} if not is_tied and contents.tensors.keys() & {_BIASES[1], *_OWN} else set()


def _shapes(contents: Contents) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor that there may be, as the dictionary has its sizes."""
    found = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
    archetypal = _ARCHETYPAL[0] in found
    rows = found[_ARCHETYPAL[2] if archetypal else _PLAIN[0]]
    if len(rows) != 2:
        raise ModelError(
            f"{contents.path}: dictionary: has shape {list(rows)}, not one row for each latent; save it whole"
        )
    # By the encoder's bias, where there is one, a dictionary that lies the other way round is told.
    lengths = [found[name][0] for name in (*_BIASES, "thresholds") if len(found.get(name, ())) == 1]
    width = lengths[0] if lengths and lengths[0] in rows else rows[0]
    rows = (width, rows[0] if rows[0] != width else rows[1])
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_ENCODERS, rows) | dict.fromkeys(
        (*_BIASES, "thresholds"), (width,)
    )
    shapes |= {"Q": found.get("Q", ()), "dictionary.multiplier": ()}
    if archetypal:
        points = found["dictionary.C"][0] if len(found["dictionary.C"]) == 2 else 0
        return shapes | dict(zip(_ARCHETYPAL, ((width, points), (points, *rows[1:]), rows), strict=True))
    return shapes | {_PLAIN[0]: rows}


def _combined(tensors: dict[str, Tensor], unsaid: Unsaid, notices: list[Notice]) -> Tensor:
    """Rows (width, d_model) of an archetypal dictionary as overcomplete has them in eval mode, unmultiplied."""
    combination = tensors["dictionary.W"].relu()
    combination = combination / (combination.sum(1, keepdim=True) + _NOTHING)
    departures = tensors["dictionary.Relax"]
    norms = torch.linalg.vector_norm(departures, dim=1, keepdim=True)
    if unsaid.delta is not None:
        departures = departures * (unsaid.delta / norms).clamp(max=1)
    else:
        text = (
            f"archetypal rows depart from the hull of their points by up to {float(norms.max()):.3g}; the bound that "
            "training kept is not in the file, and the last step before it was saved may have gone past it: --delta "
            "bounds them again"
        )
        notices.append(Notice("note", text))
    return combination @ tensors["dictionary.C"] + departures


def _normalized(contents: Contents, rows: Tensor, kind: Rows | None) -> Tensor:
    """Rows (width, d_model) normalized by the kind that was said, or that they show."""
    orders: dict[str, float] = {"l2": 2, "max_l2": 2, "l1": 1, "max_l1": 1}
    norms = {order: torch.linalg.vector_norm(rows, ord=order, dim=1, keepdim=True) for order in (1, 2)}
    if kind is None:
        off = {order: (norm[norm > 0] - 1).abs() for order, norm in norms.items()}
        near = {order: bool((far < _NEAR).all()) for order, far in off.items()}
        kind = "l2" if near[2] else "l1" if near[1] else None
    if kind is None:
        raise contents.wrong(
            "dictionary._weights",
            f"rows of norms {float(norms[2].min()):.3g} to {float(norms[2].max()):.3g}",
            "rows of unit norm in l2, which is the default there, or in l1. The state dict does not say how others are "
            "normalized: --rows l2, max_l2, l1, max_l1 or identity does (save it after .eval() and it shows)",
        )
    if kind == "identity":
        return rows
    norm = norms[int(orders[kind])]
    return rows / (norm.max() if kind.startswith("max") else norm + _NOTHING)


def _rule(contents: Contents, tensors: dict[str, Tensor], unsaid: Unsaid, has_encoder: bool) -> tuple[Variant, Lost]:
    """Code rule, told by the tensors where only one class has them."""
    code = unsaid.code or _said_code(contents)
    unsaid = replace(unsaid, k=unsaid.k or contents.said.get("k"), threshold=_said_threshold(contents, unsaid))
    if "thresholds" in tensors and code in (None, "jumprelu"):
        return jumprelu(tensors["thresholds"].exp()), Lost()
    if "Q" in tensors and code in (None, "quantized", "quantized-hard"):
        return Quantized(tensors["Q"].tolist(), is_hard=code == "quantized-hard"), Lost()
    width = len(tensors[_PLAIN[0] if _PLAIN[0] in tensors else _ARCHETYPAL[2]])
    own = [name for name in _OWN if name in tensors]
    if not own and code in _PURSUITS and not has_encoder:
        return _PURSUITS[code](checked_k(contents, unsaid.k, width)), Lost()
    if has_encoder and not own and code == "topk":
        return topk(contents, unsaid.k, width), Lost()
    if has_encoder and not own and code == "batchtopk":
        return lost_threshold(contents, unsaid, None)
    if has_encoder and not own and code == "relu":
        return Relu(), Lost()
    allowed = "relu, topk (with --k) or batchtopk (with --threshold, or --k and --manifests)"
    if not has_encoder:
        allowed = "matching-pursuit or orthogonal-matching-pursuit (with --k)"
    if own:
        allowed = "jumprelu" if own[0] == "thresholds" else "quantized, quantized-hard"
    raise contents.wrong("code", code, f"--code {allowed}; the state dicts of these classes have the same tensors")


def _said_code(contents: Contents) -> CodeRule | None:
    """Rule by visaebench's keys, with which it opens such files; None where there are none."""
    named = str(next((contents.said[key] for key in _NAMED_BY if key in contents.said), "")).lower()
    rules: tuple[CodeRule, ...] = ("topk", "batchtopk", "jumprelu")
    return next((rule for rule in rules if rule == named), None)


def _said_threshold(contents: Contents, unsaid: Unsaid) -> float | None:
    """Threshold that was said by hand, or that stands beside the file."""
    said = contents.said.get("threshold")
    if unsaid.threshold is not None or said is None:
        return unsaid.threshold
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise contents.wrong("threshold", said, "a number")
    return float(said)
