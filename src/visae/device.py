"""Which device a job computes on."""

from __future__ import annotations

import torch

from visae.errors import ConfigError


def chosen_device(wanted: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device; `auto` is CUDA where there is a GPU.

    Raises
    ------
    ConfigError
        If `cuda` is wanted and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda: torch sees no GPU here; set device: auto or cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether products shall be in bfloat16: `auto` is yes on a GPU that has it, and no elsewhere."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def described(device: torch.device) -> str:
    """Name the device for logs and summaries."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
