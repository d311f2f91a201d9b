"""Read a checkpoint file: told by its content, tensors only, and the state dict that it holds under its own names."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from visae.errors import ModelError

# Where training libraries keep weights in a checkpoint. Of several the first is taken: averaged weights (timm), the
# teacher of a self-distillation (DINO), then the plain ones.
_MEMBERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "encoder",
)
# What else they keep there, none of it weights of the network that is asked for.
# fmt: off
_EXTRAS = frozenset(
    (
        "amp", "amp_scaler", "arch", "args", "batch_size", "best_acc", "best_acc1", "best_metric", "callbacks",
        "cfg", "config", "date", "dino_loss", "epoch", "fp16_scaler", "global_step", "grad_scaler",
        "hparams_name", "hyper_parameters", "ibot_loss", "iteration", "loops", "loss", "lr", "lr_scheduler",
        "lr_schedulers", "meta", "metric", "metrics", "name", "native_amp_scaling", "opt", "opt_state",
        "optimizer", "optimizer_state_dict", "optimizers", "predictor", "pytorch-lightning_version", "scaler",
        "scheduler", "state", "step", "student", "tag", "target_encoder", "timestamp", "train_loss", "trainer",
        "val_loss", "version", "world_size",
    )
)
# fmt: on
# Wrappers put these before every name (DDP, torch.compile, Lightning).
_WRAPPERS = ("module.", "_orig_mod.")


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of a file.

    Parameters
    ----------
    path
        safetensors, or what torch.save writes; the content decides which, not the suffix. Nothing of a pickle is run.

    Returns
    -------
    state
        Names to tensors: float32 where the file has floats of another width, wrappers' prefixes taken off.
    member
        Which member of the checkpoint they are, where it holds several sets of weights; otherwise empty.

    Raises
    ------
    ModelError
        If the file cannot be read safely, or holds something that is not known.
    """
    try:
        content = load_file(path) if _is_safetensors(path) else _torch_load(path)
    except Exception as error:  # torch and safetensors raise many kinds for files that are no weights
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ModelError(
            f"weights: {path} holds no weights that can be read safely ({type(error).__name__}: {reason}); "
            f"{_advice(path, reason)}"
        ) from error
    state, member = _member(content, path)
    return {_unwrapped(name): _as_float32(tensor) for name, tensor in state.items()}, member


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header, which is JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{"


def _torch_load(path: Path) -> Any:
    # timm's and DINO's checkpoints hold the arguments of their training, a class without code of its own.
    # An open file, as torch goes by the suffix of a name.
    with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _advice(path: Path, reason: str) -> str:
    with path.open("rb") as file:
        start = file.read(40)
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the weights: run git lfs pull where it lies"
    if "TorchScript" in reason:
        return (
            "it is a TorchScript archive, as OpenAI published CLIP: if you trust it, save "
            "torch.jit.load(path).state_dict() as .safetensors"
        )
    return "save the model's state_dict() as .safetensors"


def _member(content: Any, path: Path) -> tuple[Mapping[str, Tensor], str]:
    """Find the state dict in what a checkpoint holds."""
    if not isinstance(content, Mapping):
        raise ModelError(
            f"weights: {path} holds a {type(content).__name__}, not names and tensors; save the model's state_dict()"
        )
    found = [name for name in _MEMBERS if isinstance(content.get(name), Mapping)]
    if found:
        beside = sorted(str(name) for name in content if name not in (*_MEMBERS, *_EXTRAS))
        if beside:
            raise ModelError(
                f"weights: {path} holds {found[0]} and, beside it, {', '.join(beside[:5])}, which visae does not know; "
                f"save {found[0]} alone"
            )
        inner, deeper = _member(content[found[0]], path)
        return inner, deeper or (found[0] if len(found) > 1 or "student" in content else "")
    state = {name: value for name, value in content.items() if name not in _EXTRAS or isinstance(value, Tensor)}
    odd = sorted(str(name) for name, value in state.items() if not isinstance(value, Tensor | int))
    if odd or not state:
        raise ModelError(
            f"weights: {path} holds {', '.join(odd[:5]) or 'nothing'}, which "
            f"{'are' if len(odd) > 1 else 'is'} no tensor and no member that visae knows "
            f"({', '.join(_MEMBERS)}); save the model's state_dict()"
        )
    # OpenAI's CLIP has three whole numbers among its tensors.
    return {name: torch.as_tensor(value) for name, value in state.items()}, ""


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.split(".", maxsplit=1)[1]
    return name


def _as_float32(tensor: Tensor) -> Tensor:
    """Widen floats at once, so that whatever is computed from them (resampling, sums) is not rounded to 16 bits."""
    return tensor.float() if tensor.is_floating_point() else tensor
