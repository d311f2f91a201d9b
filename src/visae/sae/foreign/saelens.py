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
from visae.sae.foreign.saelens_config import VERSION
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Variant

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
    if sae.clamp is not None:
        raise ModelError(f"clamp: {sae.clamp:g}: SAELens has no clamping of what goes in; train with clamp left out")
    if sae.normalization == "per_token" and not torch.isclose(sae.eps, torch.tensor(_EPS)):
        raise ModelError(f"normalization: per_token with eps {float(sae.eps):g}; SAELens' layer_norm has {_EPS:g}")
    rule = sae.variant.rule if isinstance(sae.variant, Matryoshka) else sae.variant
    # In double precision: a mean far from zero would otherwise cost the biases digits.
    encoder, shift = sae.weights.encoder.double(), torch.zeros(sae.width, dtype=torch.float64)
    if sae.centres:
        encoder = encoder / sae.scale.double()
        shift = encoder @ sae.mean.double()
    bias = sae.weights.encoder_bias.double() - shift
    decoder, decoder_bias = sae.weights.decoder.double(), sae.weights.decoder_bias.double()
    if not sae.needs_like:  # else SAELens itself multiplies by each token's deviation, and adds its mean
        scale = sae.output_scale_of(None).double()
        decoder, decoder_bias = decoder * scale, decoder_bias * scale + sae.output_mean_of(None).double()
    tensors = {"W_enc": encoder.T, "W_dec": decoder, "b_dec": decoder_bias}
    architecture, own, options = _architecture(rule, bias, shift)
    if sae.is_transcoder:
        if architecture not in _TRANSCODERS:
            raise ModelError(f"variant {sae.variant.name}: SAELens has no transcoders with it; allowed: relu, jumprelu")
        architecture, options = _TRANSCODERS[architecture], {"d_out": sae.d_target}
    with atomic_path(folder / WEIGHTS) as temporary:
        tensors |= own
        save_file({name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
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
        "metadata": {"sae_lens_version": VERSION},
    }
    write_json(folder / CONFIG, config)
    return folder / CONFIG


def _architecture(rule: Variant, bias: Tensor, shift: Tensor) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """SAELens' name of a code rule, the tensors beside encoder and decoder, and its keys of cfg.json.

    Parameters
    ----------
    bias
        (width,), the encoder's bias for raw activations.
    shift
        (width,), what the encoder makes of the mean.
    """
    if isinstance(rule, BatchTopK):
        return "jumprelu", {"b_enc": bias, "threshold": rule.threshold.expand(len(bias))}, {}
    if isinstance(rule, TopK):
        return "topk", {"b_enc": bias}, {"k": rule.k, "rescale_acts_by_decoder_norm": False}
    if isinstance(rule, JumpRelu):
        return "jumprelu", {"b_enc": bias, "threshold": rule.log_threshold.detach().exp()}, {}
    if isinstance(rule, Gated):
        log_scale, magnitude_bias = rule.log_scale.detach().double(), rule.magnitude_bias.detach().double()
        own = {"b_gate": bias, "r_mag": log_scale, "b_mag": magnitude_bias - log_scale.exp() * shift}
        return "gated", own, {}
    if isinstance(rule, Relu):
        return "standard", {"b_enc": bias}, {}
    raise ModelError(f"variant {rule.name}: SAELens has no architecture for it")
