"""Matrix products in float32 on a CPU, by whichever of torch's two libraries is the faster there.

torch multiplies float32 matrices by Intel's MKL, which leaves the AVX-512 of other makers' processors alone. oneDNN,
which torch has as well, uses it: twice as fast there (`python -m bench.products`), and no faster elsewhere. Both round
sums in an order of their own, so results differ in the last bits of float32; on one machine they are always the same.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_INTEL = "GenuineIntel"


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, buffer: Tensor | None = None) -> Tensor:
    """Inputs (..., d_in) times a weight (d_out, d_in) transposed, plus a bias (d_out,); differentiable.

    The same function as torch.nn.functional.linear.

    Parameters
    ----------
    buffer
        (n, d_out) for two-dimensional inputs: memory that the result may be written to, where no gradient is wanted.
    """
    if not _is_for_onednn(inputs, weight):
        if buffer is None or bias is None:
            return functional.linear(inputs, weight, bias)
        return torch.addmm(bias, inputs, weight.T, out=buffer)
    if not torch.is_grad_enabled():
        return _by_onednn(inputs, weight, bias)
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return functional.linear(inputs, weight, bias)
    return _FrozenLinear.apply(inputs, weight, bias)


def speed_up_linears(module: nn.Module) -> None:
    """Let all linear layers of a module multiply by `linear`; their weights and names stay as they are.

    Where oneDNN is taken, the GELU of timm's MLPs is computed with the product before it.
    """
    for part in module.modules():
        if onednn_is_faster() and type(part).__name__ == "Mlp" and _is_gelu(part.act) and type(part.fc1) is nn.Linear:
            part.fc1.__class__, part.act = _LinearGelu, nn.Identity()
        if type(part) is nn.Linear:  # a subclass has a forward pass of its own
            part.__class__ = _Linear


def _is_gelu(part: Any) -> bool:
    return type(part) is nn.GELU and part.approximate == "none"


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class _LinearGelu(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not _is_for_onednn(input, self.weight):
            return functional.gelu(linear(input, self.weight, self.bias))
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "gelu", [], "none")


class _FrozenLinear(torch.autograd.Function):
    """A product with a weight that does not learn: gradients of its inputs alone."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _by_onednn(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        (weight,) = ctx.saved_tensors
        return _by_onednn(gradient, weight.T, None) if ctx.needs_input_grad[0] else None, None, None


def _by_onednn(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


def _is_for_onednn(inputs: Tensor, weight: Tensor) -> bool:
    return (
        inputs.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.numel() > 0
        and onednn_is_faster()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def onednn_is_faster() -> bool:
    """Whether this machine's processor has AVX-512 and is none of Intel's, and this torch has oneDNN."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and _maker() != _INTEL
    )


def _maker() -> str:
    """Who made the processor, as it says itself; Intel where that cannot be told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return _INTEL if "AMD" not in platform.processor() else "AuthenticAMD"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id")), _INTEL)
