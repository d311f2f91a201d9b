"""Matrix products in float32 by torch's two libraries, and a forward pass made of them: python -m bench.products

`ratio` is the median over repetitions of oneDNN's speed by MKL's; which of them visae takes on this machine is printed
first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from bench.harness import Measurement, interleaved, measurement, median_ratio, parser, publish, repetitions
from visae import products
from visae.vision.timm_import import import_timm

# Rows, columns in, columns out: a ViT-S/14's and a ViT-B/16's layers, and the encoders of SAEs.
SHAPES = ((4112, 384, 1536), (4112, 1536, 384), (1576, 768, 3072), (1024, 384, 3072), (1024, 768, 24576))
PICTURES = 8


def by(is_onednn: bool, compute: Callable[[], Tensor]) -> Callable[[], float]:
    """How often a second something is computed by one of the libraries."""

    def rate() -> float:
        chosen, products.onednn_is_faster = products.onednn_is_faster, lambda: is_onednn  # type: ignore[assignment]
        try:
            compute()
            started = time.perf_counter()
            compute()
            return 1 / (time.perf_counter() - started)
        finally:
            products.onednn_is_faster = chosen

    return rate


def compared(name: str, unit: str, work: float, compute: Callable[[], Tensor], times: int) -> list[Measurement]:
    """Speed by either library; `work` is how much of the unit one call does."""
    samples = interleaved({"MKL": by(False, compute), "oneDNN": by(True, compute)}, times)
    return [
        measurement(f"{name}, MKL", median(samples["MKL"]) * work, unit),
        measurement(f"{name}, oneDNN", median(samples["oneDNN"]) * work, unit, median_ratio(samples, "oneDNN", "MKL")),
    ]


def network() -> nn.Module:
    """A ViT-S/14 of random weights."""
    import_timm()
    import timm

    module = timm.create_model("vit_small_patch14_dinov2", img_size=224).eval().requires_grad_(False)
    products.speed_up_linears(module)
    return module


@torch.inference_mode()
def main() -> int:
    options = parser(__doc__ or "", "products.json").parse_args()
    torch.set_num_threads(options.threads)
    times = repetitions(options)
    print(f"visae multiplies by {'oneDNN' if products.onednn_is_faster() else 'MKL'} on this machine")
    rows = []
    for n, d_in, d_out in SHAPES:
        inputs, weight, bias = torch.randn(n, d_in), torch.randn(d_out, d_in), torch.randn(d_out)
        rows += compared(
            f"{n} x {d_in} x {d_out}",
            "GFLOP/s",
            2e-9 * n * d_in * d_out,
            lambda operands=(inputs, weight, bias): products.linear(*operands),
            times,
        )
    vit, pictures = network(), torch.randn(PICTURES, 3, 224, 224)
    rows += compared("ViT-S/14 forward pass", "pictures/s", PICTURES, lambda: vit.forward_features(pictures), times)
    return publish(rows, options.output, options.check)


if __name__ == "__main__":
    sys.exit(main())
