"""visaebench's sae.pt and config.json (0.1.0).

Decoder rows stand as encoder rows do. The code of x is ReLU(W x + b): kept from the threshold on (`batchtopk`), the k
largest (`topk`), or above a threshold of each latent's own (`jumprelu`). x is an activation less a mean, over one
deviation for all dimensions; both are computed anew by whoever uses the file, and are not in it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from visae.errors import ModelError
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import (
    Given,
    Lost,
    Parts,
    checked,
    oriented,
    refuse_other_sizes,
    renormalized,
    sae_of,
    sizes,
)
from visae.sae.foreign.rules import batchtopk, checked_k, jumprelu, lost_threshold, topk
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.place import Place
from visae.sae.variants.variant import Variant

_THRESHOLDS = ("jump_thresholds", "thresholds")
_RULES = ("topk", "batchtopk", "jumprelu")
_NAMED_BY = ("activation", "sae_type", "architecture")
ASKS = ("k", "threshold", "code")


def recognizes(contents: Contents) -> bool:
    """Whether encoder and decoder have its names, and settings or shape are not dictionary_learning's."""
    names = contents.tensors.keys()
    if contents.is_headed or not {"encoder.weight", "encoder.bias", "decoder.weight"} <= names:
        return False
    if names & {"b_dec", "bias", "gate_bias"} or "trainer" in contents.said:
        return False
    same = contents.tensors["decoder.weight"].shape == contents.tensors["encoder.weight"].shape
    return same or any(key in contents.said for key in ("input_dim", "hidden_dim", *_NAMED_BY))


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of a file, which takes activations that have been normalized as visaebench does.

    Raises
    ------
    ModelError
        If it is damaged, or a threshold is missing that nothing gives.
    """
    width, d_model = sizes(contents, "encoder.bias", "encoder.weight", of="SAE of visaebench")
    refuse_other_sizes(contents, contents.said, {"hidden_dim": width, "input_dim": d_model})
    rows = (width, d_model)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": rows, "encoder.bias": (width,), "decoder.weight": rows}
    shapes |= {"decoder.bias": (d_model,), "_running_threshold": ()} | dict.fromkeys(_THRESHOLDS, (width,))
    tensors = checked(contents, shapes, ("decoder.bias", "_running_threshold", *_THRESHOLDS), of="SAE of visaebench")
    decoder_bias = tensors.get("decoder.bias", torch.zeros(d_model, dtype=torch.float64))
    parts = Parts(tensors["encoder.weight"], tensors["encoder.bias"], tensors["decoder.weight"], decoder_bias, False)
    parts = oriented(contents.path, parts, unsaid)
    name = unsaid.code or next((contents.said[key] for key in _NAMED_BY if key in contents.said), None)
    rule: Variant
    lost = Lost()
    if str(name).lower() == "topk":
        rule = topk(contents, contents.said.get("k", unsaid.k), width)
    elif str(name).lower() == "jumprelu":
        own = next((tensors[key] for key in _THRESHOLDS if key in tensors), None)
        if own is None:
            raise ModelError(
                f"{contents.path}: {' or '.join(map(repr, _THRESHOLDS))} is missing for jumprelu, and visaebench would "
                "take 0.01 for all; save the SAE with its thresholds"
            )
        rule = jumprelu(own)
    elif str(name).lower() == "batchtopk":
        rule, lost = _thresholded(contents, unsaid, tensors.get("_running_threshold"))
    else:
        raise contents.wrong("activation", name, f"{', '.join(_RULES)}; --code says it where the file does not")
    sae, lost = _normalized(contents, sae_of(rule, parts.weights), lost)
    if "place" in contents.said:
        sae.place = Place.from_entries(contents.said["place"])
    return Given(sae, [], lost)


def _normalized(contents: Contents, sae: SparseAutoencoder, lost: Lost) -> tuple[SparseAutoencoder, Lost]:
    """SAE with the mean and the deviation that only files which visae exports keep, and what is lost of others."""
    said = contents.said
    if said.get("inputs") == "raw":
        return sae, lost
    if "mean" not in said or "std" not in said:
        return sae, replace(lost, normalization="deviation")
    try:
        mean, scale = (torch.tensor(said[key], dtype=torch.float32) for key in ("mean", "std"))
    except (TypeError, ValueError):
        mean, scale = torch.empty(0), torch.zeros(())
    if mean.shape != (sae.d_model,) or scale.ndim or not scale > 0 or not bool(torch.isfinite(mean).all()):
        raise contents.wrong("mean, std", "others", f"{sae.d_model} numbers, and one above 0")
    return renormalized(sae, "scale", mean, scale), lost


def _thresholded(contents: Contents, unsaid: Unsaid, running: torch.Tensor | None) -> tuple[Variant, Lost]:
    """BatchTopK with the threshold of settings or tensors, or one that is lost."""
    k = contents.said.get("k")
    k = None if k is None else checked_k(contents, k, contents.tensors["encoder.bias"].numel())
    stated = contents.said.get("threshold", None if running is None else float(running))
    if unsaid.threshold is not None or stated is None:
        return lost_threshold(contents, unsaid, k)
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not abs(stated) < float("inf"):
        raise contents.wrong("threshold", stated, "a number")
    return batchtopk(k or unsaid.k or 1, float(stated), is_from_it_on=True), Lost()
