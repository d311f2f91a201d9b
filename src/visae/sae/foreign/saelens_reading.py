"""Reading the SAEs of SAELens, of all its ages: what `saelens_config` says of them, applied to their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from visae.config.saes import Normalization
from visae.errors import ModelError
from visae.files import read_json
from visae.notices import Notice
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, Parts, has_unit_rows, oriented, sae_of
from visae.sae.foreign.rules import batchtopk, gated, jumprelu
from visae.sae.foreign.saelens import CONFIG, WEIGHTS
from visae.sae.foreign.saelens_config import TRANSCODERS, SaeLensConfig, read_config
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Variant
from visae.weights import check_names, check_shapes, check_values

# What checkpoints of the middle of training have beside them: of SAELens 6, and of 5.
_SCALER, _STORE_STATE = "activation_scaler.json", "activations_store_state.safetensors"
_STORE_SCALE = "estimated_norm_scaling_factor"
_FINETUNED = ("scaling_factor", "finetuning_scaling_factor")
_OWN_TENSORS = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "r_mag", "b_mag"),
    "batchtopk": ("b_enc", "topk_threshold"),
    "matryoshka_batchtopk": ("b_enc", "topk_threshold"),
    "transcoder": ("b_enc",),
    "skip_transcoder": ("b_enc", "W_skip"),
    "jumprelu_transcoder": ("b_enc", "threshold"),
    "jumprelu_skip_transcoder": ("b_enc", "threshold", "W_skip"),
}


ASKS = ()


def recognizes(contents: Contents) -> bool:
    """Whether settings stand beside matrices of its names."""
    return not contents.is_headed and "W_dec" in contents.tensors and contents.said_in != contents.path


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE that SAELens has saved; it takes the activations that SAELens gives its own.

    Codes that compete with their decoder rows' norms (`rescale_acts_by_decoder_norm`) are those of rows brought to unit
    norm. A factor by which activations are still to be scaled is folded into the weights, as SAELens does at the end of
    training; where a normalization was said by hand such a factor is refused, and no warning says that one may be
    missing.

    Raises
    ------
    ModelError
        If the settings are missing, or anything is damaged, or has a key, a value or a tensor that cannot be kept.
    """
    where, is_normalized = contents.path, unsaid.normalization is not None
    if contents.said_in == where:
        raise ModelError(f"{where.with_name(CONFIG)}: no such file; SAELens writes {CONFIG} and {WEIGHTS}")
    config = read_config(contents.said_in)
    tensors = _checked(where, config, dict(contents.tensors))
    factor, notices = _scaling(where.parent, config, is_normalized, has_unit_rows(tensors["W_dec"]))
    if factor is not None:
        _fold(tensors, factor, config.is_rescaled)
    bias = tensors["b_gate" if config.architecture == "gated" else "b_enc"]
    parts = Parts(tensors["W_enc"].T, bias, tensors["W_dec"], tensors["b_dec"], config.subtracts_decoder_bias)
    parts = oriented(where, parts, unsaid)
    if config.is_rescaled:
        parts = parts.of_unit_rows()
    target = len(parts.decoder_bias) if config.architecture in TRANSCODERS else None
    kind: Normalization = "per_token" if config.is_per_token else "none"
    sae = sae_of(_rule(config, tensors, parts), parts.weights, target, kind, tensors.get("W_skip"))
    sae.place = config.place
    return Given(sae, [*config.notices, *notices])


def _checked(where: Path, config: SaeLensConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in double precision, under the names of SAELens 6; whatever they should not be is refused."""
    of, own = f"architecture {config.architecture}", _OWN_TENSORS[config.architecture]
    if "log_threshold" in tensors and "threshold" in own and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").double().exp()
    check_names(where, tensors, ("W_enc", "W_dec", "b_dec", *own), _FINETUNED, of=of)
    check_values(where, tensors)
    # Where cfg.json says nothing of a size, the biases do.
    d_sae = config.d_sae or tensors[own[0]].numel()
    d_in = config.d_in or (tensors["W_enc"].numel() // d_sae if config.d_out else tensors["b_dec"].numel())
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*own, *_FINETUNED), (d_sae,))
    d_out = (config.d_out or tensors["b_dec"].numel()) if config.architecture in TRANSCODERS else d_in
    shapes |= {"topk_threshold": (), "W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,)}
    shapes["W_skip"] = (d_out, d_in)
    check_shapes(where, tensors, shapes)
    if config.k is not None and config.k > d_sae:
        raise ModelError(f"{where.with_name(CONFIG)}: k: {config.k:g} codes kept of only {d_sae}")
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    _apply_finetuning(where, config, tensors)
    return tensors


def _apply_finetuning(where: Path, config: SaeLensConfig, tensors: dict[str, Tensor]) -> None:
    """Multiply the decoder's rows by a scaling factor of finetuning, which files of before 6 may have."""
    names = [name for name in _FINETUNED if name in tensors]
    factors = [tensors.pop(name) for name in names]
    moving = [
        (name, factor)
        for name, factor in zip(names, factors, strict=True)
        if not torch.allclose(factor, torch.ones_like(factor))
    ]
    if config.has_scaling_factor and not factors:
        raise ModelError(f"{where}: 'finetuning_scaling_factor' is missing, and {CONFIG} says that the SAE has one")
    if len(moving) > 1 or (moving and not (config.has_scaling_factor and config.is_of_before_6)):
        raise ModelError(
            f"{where}: {', '.join(name for name, _ in moving)}: values other than 1 where {CONFIG} says nothing of "
            "finetuning; say finetuning_scaling_factor: true there if codes are multiplied by it before they are "
            "decoded, and keep one of them"
        )
    for _, factor in moving:
        tensors["W_dec"] *= factor.unsqueeze(1)


def _scaling(
    folder: Path, config: SaeLensConfig, is_normalized: bool, is_of_unit_rows: bool
) -> tuple[float | None, list[Notice]]:
    """Factor by which activations are still to be multiplied, and what is to be said of it."""
    found = {name: factor for name, factor in _factors(folder).items() if factor is not None}
    if len(set(found.values())) > 1 or (found and not config.is_scaled):
        said = ", ".join(f"{name}: {factor:g}" for name, factor in found.items())
        raise ModelError(
            f"{folder}: {said}, and {CONFIG} says normalize_activations: "
            f"{'expected_average_only_in' if config.is_scaled else 'none'}: these do not go together; leave beside the "
            "weights only what belongs to them"
        )
    if found and is_normalized:
        raise ModelError(
            f"{folder / next(iter(found))}: already says by what activations are scaled; leave normalization out, or "
            "move this file away if that is in your normalization too"
        )
    if found:
        name, factor = next(iter(found.items()))
        text = f"{name}: activations are multiplied by {factor:g} before they are encoded; folded into the weights"
        return factor, [Notice("note", text)]
    if not config.is_scaled or is_normalized:
        return None, []
    hint = "SAELens to 5 says so of finished SAEs too" if config.is_of_before_6 else "SAELens 6 says none once it is"
    text = (
        f"{CONFIG}: normalize_activations: expected_average_only_in, and nothing beside it proves that this scaling "
        f"has been folded into the weights ({hint}): if it has not, codes and errors are wrong. Compare by "
        "--manifests: as it is, and with --normalization, mean 0 and scale the activations' mean norm over the root of "
        "d_in"
    )
    if config.is_of_before_6 and is_of_unit_rows:
        text += (
            ". If it has, W_dec was brought back to unit norm after it, and what is decoded is off by the factor of "
            "the scaling (findings/saelens_folded_decoder.sh): divide W_dec by the root of d_in over that mean norm"
        )
    return None, [Notice("warning", text)]


def _factors(folder: Path) -> dict[str, float | None]:
    """Factors of activations that lie beside a checkpoint, by file."""
    found: dict[str, float | None] = {}
    if (folder / _SCALER).is_file():
        found[_SCALER] = _factor_of_scaler(folder / _SCALER)
    state = folder / _STORE_STATE
    if state.is_file():
        try:
            with safe_open(state, framework="pt") as file:
                has_factor = _STORE_SCALE in file.keys()  # noqa: SIM118
                found[_STORE_STATE] = _positive(state, file.get_tensor(_STORE_SCALE).item()) if has_factor else None
        except (SafetensorError, RuntimeError) as error:
            raise ModelError(f"{state}: damaged ({error}); copy it again from where it was made") from error
    return found


def _factor_of_scaler(path: Path) -> float | None:
    try:
        said = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not JSON ({error}); copy it again from where it was made") from error
    if unknown := sorted(said.keys() - {"scaling_factor", "has_whitening"}):
        raise ModelError(f"{path}: unknown keys: {', '.join(unknown)}; allowed: scaling_factor, has_whitening")
    if said.get("has_whitening"):
        raise ModelError(f"{path}: has_whitening: true; allowed: false; let SAELens end the training, which folds it")
    if "scaling_factor" not in said:
        raise ModelError(f"{path}: 'scaling_factor' is missing; copy it again from where it was made")
    return None if said["scaling_factor"] is None else _positive(path, said["scaling_factor"])


def _positive(path: Path, factor: Any) -> float:
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise ModelError(f"{path}: a factor of {factor!r}; allowed: a number above 0")
    return float(factor)


def _fold(tensors: dict[str, Tensor], factor: float, is_rescaled: bool) -> None:
    """Let an SAE of activations times `factor` take them as they are, in place."""
    tensors["W_enc"] *= factor
    tensors["W_dec"] /= factor
    tensors["b_dec"] /= factor
    # A threshold of rescaled codes is in units of the decoder's norms, which have just changed.
    if is_rescaled and "topk_threshold" in tensors:
        tensors["topk_threshold"] /= factor


def _rule(config: SaeLensConfig, tensors: dict[str, Tensor], parts: Parts) -> Variant:
    """Code rule of checked tensors."""
    if config.architecture in ("standard", "transcoder", "skip_transcoder"):
        return Relu()
    if config.architecture.startswith("jumprelu"):
        return jumprelu(tensors["threshold"])
    if config.architecture == "gated":
        return gated(tensors["r_mag"], tensors["b_mag"], parts.shift)
    assert config.k is not None
    if config.architecture == "topk":
        return TopK(int(config.k))
    return batchtopk(max(1, round(config.k)), float(tensors["topk_threshold"]))
