"""Files of weights, read by allow-list: whatever a tensor should not be is refused by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from visae.errors import ModelError

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name.

    Raises
    ------
    ModelError
        If it is missing, cut short or no safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        what = "no such file" if not path.exists() else f"damaged, or no safetensors file ({error})"
        raise ModelError(f"{path}: {what}; copy it again from where it was made, or make it again") from error


def check_names(
    where: Path, tensors: Mapping[str, Tensor], required: Iterable[str], optional: Iterable[str] = (), *, of: str
) -> None:
    """Refuse tensors that are missing, and those that nothing is known of.

    Parameters
    ----------
    of
        Whose tensors these names are, for the message.

    Raises
    ------
    ModelError
        If any is.
    """
    required = set(required)
    if missing := sorted(required - tensors.keys()):
        names = ", ".join(repr(name) for name in missing)
        raise ModelError(f"{where}: {names} {'is' if len(missing) == 1 else 'are'} missing for {of}; save it whole")
    if unknown := sorted(tensors.keys() - required - set(optional)):
        raise ModelError(f"{where}: tensors that no {of} has: {', '.join(unknown)}; what they do would be left out")


def check_values(where: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not of floating point, or hold NaN or infinity.

    Raises
    ------
    ModelError
        If any is or does.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            raise ModelError(
                f"{where}: {name} has dtype {str(tensor.dtype).removeprefix('torch.')}; allowed: {allowed}; "
                "save the weights as one of them, quantized ones after undoing that"
            )
        if n_odd := int((~torch.isfinite(tensor)).sum()):
            raise ModelError(
                f"{where}: {name}: {n_odd} of {tensor.numel()} values are NaN or infinite; take a checkpoint of before "
                "training went wrong, or weights saved in a wider dtype"
            )


def check_shapes(where: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors of another shape; a matrix that is transposed is told from one of another size.

    Raises
    ------
    ModelError
        If any has.
    """
    for name, shape in shapes.items():
        if name not in tensors or (found := tuple(tensors[name].shape)) == shape:
            continue
        is_transposed = len(shape) > 1 and found == shape[::-1]
        what = (
            "it is transposed; save it the other way round"
            if is_transposed
            else "these weights belong to something else"
        )
        raise ModelError(f"{where}: {name} has shape {list(found)} where {list(shape)} belongs: {what}")
