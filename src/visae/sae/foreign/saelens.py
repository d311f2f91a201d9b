"""Writing SAEs as SAELens (sae-lens 6) reads them: a folder with cfg.json and sae_weights.safetensors.

There an activation x is encoded as W_enc^T (x - b_dec, if apply_b_dec_to_input) + b_enc, and codes f are decoded as
W_dec^T f + b_dec, with W_enc (d_in, d_sae) and W_dec (d_sae, d_out).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from visae.errors import ModelError
from visae.files import atomic_path, write_json
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.foreign.folding import Folded, as_float, folded, refuse_beyond
from visae.sae.foreign.places import HOOKS
from visae.sae.foreign.saelens_config import VERSION
from visae.sae.place import Place
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
# What SAELens' layer_norm adds to a token's deviation.
_EPS = 1e-5
# What each architecture of ours without a decoder bias on its input is named for transcoders.
_TRANSCODERS = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}


def write_saelens(sae: SparseAutoencoder, folder: Path) -> Path:
    """Write an SAE as SAELens reads it: raw activations in and out, the same codes; returns the path of cfg.json.

    Mean and scale are folded into the weights; `per_token` is SAELens' `layer_norm`. Variants become the architecture
    that has their code rule: `batchtopk` and its threshold `jumprelu`, `archetypal` `topk`, `matryoshka` whatever it is
    over.

    Raises
    ------
    ModelError
        If the SAE does what SAELens has no architecture for.
    """
    refuse_beyond(sae, "SAELens", per_token=True, transcoders=True)
    if sae.normalization == "per_token" and not torch.isclose(sae.eps, torch.tensor(_EPS)):
        raise ModelError(
            f"normalization: per_token with eps {float(sae.eps):g}: SAELens' layer_norm has {_EPS:g}; export as hub"
        )
    weights = folded(sae)  # under per_token SAELens itself multiplies by each token's deviation, and adds its mean
    tensors = {"W_enc": weights.encoder.T, "W_dec": weights.decoder, "b_dec": weights.decoder_bias}
    architecture, own, options = _architecture(weights)
    if sae.is_transcoder:
        if architecture not in _TRANSCODERS:
            raise ModelError(
                f"variant {sae.variant.name}: SAELens has transcoders of relu and jumprelu alone; export as hub"
            )
        architecture, options = _TRANSCODERS[architecture], {"d_out": sae.d_target}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(as_float(tensors | own), temporary)
    config = {
        "architecture": architecture,
        "d_in": sae.d_model,
        "d_sae": sae.width,
        **options,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "layer_norm" if sae.normalization == "per_token" else "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": VERSION, **_place(sae.place)},
    }
    write_json(folder / CONFIG, config)
    return folder / CONFIG


def _place(place: Place) -> dict[str, Any]:
    """What is known of an SAE's place, under SAELens' names and those of its hook points."""
    if place.layer is None:
        return {"model_name": place.model} if place.model else {}
    hook = f"blocks.{place.layer}.{HOOKS.get(place.hook, place.hook)}"
    known = {"model_name": place.model, "hook_name": hook, "hook_layer": place.layer, "tokens": place.tokens}
    return {key: value for key, value in known.items() if value is not None}


def _architecture(weights: Folded) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """SAELens' name of a code rule, the tensors beside encoder and decoder, and its keys of cfg.json."""
    rule, bias = weights.rule, weights.bias
    if isinstance(rule, BatchTopK):
        return "jumprelu", {"b_enc": bias, "threshold": rule.threshold.expand(len(bias))}, {}
    if isinstance(rule, TopK):
        return "topk", {"b_enc": bias}, {"k": rule.k, "rescale_acts_by_decoder_norm": False}
    if isinstance(rule, JumpRelu):
        return "jumprelu", {"b_enc": bias, "threshold": rule.log_threshold.detach().exp()}, {}
    if isinstance(rule, Gated):
        log_scale, magnitude_bias = weights.gate()
        return "gated", {"b_gate": bias, "r_mag": log_scale, "b_mag": magnitude_bias}, {}
    if isinstance(rule, Relu):
        return "standard", {"b_enc": bias}, {}
    raise ModelError(f"variant {rule.name}: SAELens has no architecture for it")
