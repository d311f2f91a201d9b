"""Writing SAEs as dictionary_learning 0.1.0 reads them: a folder with ae.pt, a state dict, and config.json.

Its SAEs take raw activations and normalize nothing; most subtract b_dec before they encode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.files import atomic_path, write_json
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.foreign.folding import Folded, as_float, folded, refuse_beyond
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

WEIGHTS, CONFIG = "ae.pt", "config.json"


def write_dictionary_learning(sae: SparseAutoencoder, folder: Path) -> Path:
    """Write an SAE for `load_dictionary`: raw activations in and out, the same codes; returns the path of config.json.

    `relu` becomes AutoEncoderNew, since AutoEncoder brings decoder rows to unit norm when it is loaded, which changes
    the codes; `archetypal` becomes AutoEncoderTopK, `matryoshka` whatever it is over.

    Raises
    ------
    ModelError
        If the SAE does what dictionary_learning has no class for.
    """
    refuse_beyond(sae, "dictionary_learning")
    name, tensors, options = _dictionary(folded(sae))
    with atomic_path(folder / WEIGHTS) as temporary:
        torch.save(as_float(tensors), temporary)
    place = sae.place
    trainer = {
        "dict_class": name,
        "activation_dim": sae.d_model,
        "dict_size": sae.width,
        **options,
        "layer": place.layer,
        "lm_name": place.model,
        "submodule_name": place.hook,
        "tokens": place.tokens,
    }
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {"d_submodule": sae.d_model}})
    return folder / CONFIG


def _dictionary(weights: Folded) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Name of the class that has a code rule, its tensors, and further keys of its configuration."""
    rule, offset = weights.rule, weights.decoder_bias
    linear = {"encoder.weight": weights.encoder, "decoder.weight": weights.decoder.T}
    if isinstance(rule, TopK):
        is_batch = isinstance(rule, BatchTopK)
        # Its own sign of a threshold that was never learned; TopK does not look at it.
        threshold = rule.threshold if isinstance(rule, BatchTopK) else torch.tensor(-1.0)
        own = {"k": torch.tensor(rule.k, dtype=torch.int32), "threshold": threshold}
        tensors = {**linear, "encoder.bias": weights.biased(offset), "b_dec": offset, **own}
        return "BatchTopKSAE" if is_batch else "AutoEncoderTopK", tensors, {"k": rule.k}
    if isinstance(rule, JumpRelu):
        tensors = {"W_enc": weights.encoder.T, "b_enc": weights.bias, "W_dec": weights.decoder, "b_dec": offset}
        return "JumpReluAutoEncoder", {**tensors, "threshold": rule.log_threshold.detach().exp()}, {}
    if isinstance(rule, Gated):
        log_scale, magnitude_bias = weights.gate()
        own = {
            "gate_bias": weights.biased(offset),
            "r_mag": log_scale,
            "mag_bias": magnitude_bias + log_scale.exp() * (weights.encoder @ offset),
        }
        return "GatedAutoEncoder", {**linear, "decoder_bias": offset, **own}, {}
    if isinstance(rule, Relu):
        return "AutoEncoderNew", {**linear, "encoder.bias": weights.bias, "decoder.bias": offset}, {}
    raise ModelError(f"variant {rule.name}: dictionary_learning has no class for it; export as hub")
