"""Where visae's TopK step spends its time: the step, its parts alone, and what help for dead latents adds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from training_protocol import Batches
from visae_training import started

from bench.gpu.device import seconds
from bench.gpu.report import Report
from bench.gpu.sizes import Size
from bench.harness import measurement
from visae.sae.variants.selection import blocks, largest_per_token
from visae.sae.variants.sparse import by_latent, value_gradients
from visae.sae.variants.variant import reconstruction_error, sparse_pass

# Steps before: as trained as in the timing of the trainer.
WARM_UP = 200
CALLS = 10


@torch.no_grad()
def parts(size: Size, report: Report) -> None:
    """Milliseconds of each part of a step, by itself; a GPU is waited for around each."""
    given = size.worker_settings(sample_tokens=min(size.sample_tokens, 4 * size.batch))
    batches = Batches(Path(given["data"]), size.d_model, size.batch, size.device)
    held = [batches[number] for number in range(min(8, batches.count))]
    run = started(given, batches)
    for number in range(WARM_UP):
        run.advance(held[number % len(held)])
    sae, weights, inputs = run.sae, run.sae.weights, run.sae.normalized(held[0])
    narrow = torch.autocast(size.device, torch.bfloat16, enabled=size.device == "cuda")
    nobody = torch.zeros(sae.width, dtype=torch.bool, device=size.device)
    half = torch.arange(sae.width, device=size.device) % 2 == 0

    def step(dead: torch.Tensor) -> object:
        return sae.variant.step(weights, inputs, run.step, dead)

    with narrow:
        codes = largest_per_token(inputs, weights.encoder, weights.encoder_bias, size.k)
    output_gradient = reconstruction_error(weights, inputs, codes)
    ordered = by_latent(codes)
    timed: dict[str, Callable[[], object]] = {
        "encoder's product": lambda: [None for _ in blocks(inputs, weights.encoder, weights.encoder_bias)],
        "encoder's product and top-k": lambda: largest_per_token(inputs, *weights[:2], size.k),
        "reconstruction": lambda: reconstruction_error(weights, inputs, codes),
        "gradients of codes": lambda: value_gradients(codes, output_gradient, weights.decoder),
        "order by latent": lambda: by_latent(codes),
        "gradient of the decoder": lambda: ordered.row_gradients(codes.values, output_gradient),
        "gradient of the encoder": lambda: ordered.row_gradients(codes.values, inputs),
        "everything after top-k": lambda: sparse_pass(weights, inputs, inputs, codes),
        "loss and gradients": lambda: step(nobody),
        "loss and gradients, half of the latents dead": lambda: step(half),
    }
    for name, work in timed.items():
        with narrow:
            report.add(measurement(f"parts: {name}", _milliseconds(size.device, work), "ms"))
    whole = _milliseconds(size.device, lambda: run.advance(held[0]))
    report.add(measurement("parts: a whole step", whole, "ms"))


def _milliseconds(device: str, work: Callable[[], object]) -> float:
    work()
    return 1e3 * median(seconds(device, work) for _ in range(CALLS))
