"""Writing SAEs as visaebench 0.1.0 reads them: a folder with model.safetensors and config.json.

A pre-activation of x is ReLU(encoder x + bias) there, of which TopK, one threshold or one a latent choose; codes z are
decoded as z decoder + bias, with both weights (hidden_dim, input_dim).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
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

WEIGHTS, CONFIG = "model.safetensors", "config.json"
Inputs = Literal["raw", "normalized"]


def write_visaebench(sae: SparseAutoencoder, folder: Path, inputs: Inputs = "raw") -> Path:
    """Write an SAE for `visaebench.load_sae`: the same codes; returns the path of config.json.

    `gated` becomes the `jumprelu` that computes the same, `relu` a `jumprelu` of thresholds 0, `archetypal` becomes
    `topk`, `matryoshka` whatever it is over.

    Parameters
    ----------
    inputs
        `raw`: it takes raw activations. `normalized`: activations less a mean, over one standard deviation, as
        `visaebench.evaluate` passes them where it has both; `mean` and `std` then stand in config.json.

    Raises
    ------
    ModelError
        If the SAE does what visaebench has no activation for, or `inputs` are asked for that it does not take.
    """
    refuse_beyond(sae, "visaebench")
    is_raw = inputs == "raw"
    if not is_raw and sae.normalization != "scale":
        raise ModelError(
            f"normalization: {sae.normalization}: visaebench knows a mean and one scale alone; export with --inputs raw"
        )
    activation, tensors, options = _parts(folded(sae, raw=is_raw))
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(as_float(tensors), temporary)
    config = {
        "activation": activation,
        "input_dim": sae.d_model,
        "hidden_dim": sae.width,
        **options,
        "inputs": inputs,
        **({} if is_raw else {"mean": sae.mean.tolist(), "std": float(sae.scale)}),
        "place": asdict(sae.place),
    }
    write_json(folder / CONFIG, config)
    return folder / CONFIG


def _parts(weights: Folded) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Activation that has a code rule, all tensors, and further keys of its configuration."""
    rule, encoder, bias, options = weights.rule, weights.encoder, weights.bias, {}
    thresholds: dict[str, Tensor] = {}
    if isinstance(rule, BatchTopK):
        activation, options = "batchtopk", {"k": rule.k, "threshold": float(rule.threshold)}
    elif isinstance(rule, TopK):
        activation, options = "topk", {"k": rule.k}
    elif isinstance(rule, JumpRelu):
        activation, thresholds = "jumprelu", {"jump_thresholds": rule.log_threshold.detach().exp()}
    elif isinstance(rule, Relu):
        activation, thresholds = "jumprelu", {"jump_thresholds": torch.zeros(len(bias))}
    elif isinstance(rule, Gated):
        # Gate and magnitude are linear in one product: the gate is open where the magnitude is above a threshold.
        log_scale, magnitude_bias = weights.gate()
        factors = log_scale.exp()
        activation, thresholds = "jumprelu", {"jump_thresholds": magnitude_bias - factors * bias}
        encoder, bias = encoder * factors.unsqueeze(1), magnitude_bias
    else:
        raise ModelError(f"variant {rule.name}: visaebench has no activation for it; export as hub")
    decoding = {"decoder.weight": weights.decoder, "decoder.bias": weights.decoder_bias}
    return activation, {"encoder.weight": encoder, "encoder.bias": bias, **decoding, **thresholds}, options
