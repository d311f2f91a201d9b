"""SAELens (sae-lens 6): a folder with cfg.json and sae_weights.safetensors.

There an activation x is encoded as W_enc^T (x - b_dec, if apply_b_dec_to_input) + b_enc, and codes f are decoded as
W_dec^T f + b_dec, with W_enc (d_in, d_sae) and W_dec (d_sae, d_out).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from visae.errors import ModelError
from visae.files import atomic_path, read_json, write_json
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.batchtopk import BatchTopK
from visae.sae.foreign.given import filled, row_norms, sae_of
from visae.sae.gated import Gated
from visae.sae.jumprelu import JumpRelu
from visae.sae.matryoshka import Matryoshka
from visae.sae.relu import Relu
from visae.sae.topk import TopK
from visae.sae.variant import Variant, Weights

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
# Without a version SAELens takes a configuration for one of before 6.0; this is the one that tests compare with.
_VERSION = "6.54.12"
_ARCHITECTURES = ("standard", "topk", "jumprelu", "gated", "batchtopk")
# What each architecture of ours without a decoder bias on its input is named for transcoders.
_TRANSCODERS = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}


def write_saelens(sae: SparseAutoencoder, folder: Path) -> Path:
    """Write an SAE as SAELens reads it: raw activations in and out, the same codes; returns the path of cfg.json.

    Mean and scale are folded into the weights. Variants become the architecture that has their code rule:
    `batchtopk` and its threshold `jumprelu`, `archetypal` `topk`, `matryoshka` whatever it is over.

    Raises
    ------
    ModelError
        If the SAE does what SAELens has no architecture for.
    """
    if sae.clamp is not None:
        raise ModelError(f"clamp: {sae.clamp:g}: SAELens has no clamping of what goes in; train with clamp left out")
    rule = sae.variant.rule if isinstance(sae.variant, Matryoshka) else sae.variant
    # In double precision: a mean far from zero would otherwise cost the biases digits.
    encoder = sae.weights.encoder.double() / sae.scale.double()
    shift = encoder @ sae.mean.double()
    bias = sae.weights.encoder_bias.double() - shift
    mean = sae.target_mean if sae.is_transcoder else sae.mean
    scale = sae.output_scale.double()
    tensors = {
        "W_enc": encoder.T,
        "W_dec": sae.weights.decoder.double() * scale,
        "b_dec": sae.weights.decoder_bias.double() * scale + mean.double(),
    }
    architecture, own, options = _architecture(rule, bias, shift)
    if sae.is_transcoder:
        if architecture not in _TRANSCODERS:
            raise ModelError(f"variant {sae.variant.name}: SAELens has no transcoders with it; allowed: relu, jumprelu")
        architecture, options = _TRANSCODERS[architecture], {"d_out": sae.d_target}
    with atomic_path(folder / _WEIGHTS) as temporary:
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
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _VERSION},
    }
    write_json(folder / _CONFIG, config)
    return folder / _CONFIG


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


def read_saelens(folder: Path) -> SparseAutoencoder:
    """Read an SAE that SAELens has saved; it takes the activations that SAELens gives its own.

    Decoder rows are brought to unit norm, codes grow by what rows lose. Only a `topk` whose codes compete without
    their rows' norms (`rescale_acts_by_decoder_norm: false`) keeps its rows, since other codes would win.

    Raises
    ------
    ModelError
        If files are missing or damaged, or say something that cannot be kept.
    """
    config, tensors = _read(folder)
    where = folder / _CONFIG
    architecture = config.get("architecture", "standard")
    if architecture not in _ARCHITECTURES:
        raise ModelError(f"{where}: architecture: {architecture!r}; allowed: {', '.join(_ARCHITECTURES)}")
    # `expected_average_only_in` is of training: SAELens folds it into the weights, and leaves activations as they are.
    plain = {"normalize_activations": ("none", "expected_average_only_in"), "reshape_activations": ("none",)}
    for key, allowed in plain.items():
        if config.get(key, "none") not in allowed:
            raise ModelError(f"{where}: {key}: {config[key]!r}; allowed: {', '.join(allowed)}")
    try:
        return _sae(architecture, config, {name: tensor.double() for name, tensor in tensors.items()})
    except KeyError as error:
        raise ModelError(f"{folder}: {error} is missing for architecture {architecture}") from error


def _sae(architecture: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> SparseAutoencoder:
    encoder, decoder, decoder_bias = tensors["W_enc"].T, tensors["W_dec"], tensors["b_dec"]
    shift = encoder @ decoder_bias if config.get("apply_b_dec_to_input", True) else torch.zeros(len(encoder))
    competing = architecture in ("topk", "batchtopk") and not config.get("rescale_acts_by_decoder_norm", False)
    norms = torch.ones(len(decoder)) if competing else row_norms(decoder)
    bias = (tensors["b_gate" if architecture == "gated" else "b_enc"] - shift) * norms
    weights = Weights(encoder * norms.unsqueeze(1), bias, decoder / norms.unsqueeze(1), decoder_bias)
    width = len(encoder)
    variant: Variant
    if architecture == "topk":
        variant = TopK(int(config["k"]))
    elif architecture == "batchtopk":
        variant = BatchTopK(round(config["k"]))
        filled(variant.threshold, tensors["topk_threshold"])
    elif architecture == "jumprelu":
        variant = JumpRelu(width)
        # Codes are positive there as well, so a threshold of zero or less is no other than a tiny one.
        least = torch.finfo(torch.float32).tiny
        filled(variant.log_threshold, (tensors["threshold"] * norms).clamp(min=least).log())
    elif architecture == "gated":
        variant = Gated(width)
        filled(variant.log_scale, tensors["r_mag"])
        filled(variant.magnitude_bias, (tensors["b_mag"] - tensors["r_mag"].exp() * shift) * norms)
    else:
        variant = Relu()
    return sae_of(variant, weights)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: no such file; SAELens writes {_CONFIG} and {_WEIGHTS}")
    try:
        return read_json(folder / _CONFIG), load_file(folder / _WEIGHTS)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{folder}: not an SAE of SAELens: {error}") from error
