"""What bounds visae's TopK step, measured in one process: the step, its parts, the machine, and a whole training run.

`matmul` is the encoder's product alone, `rest` what no sparse step can do without once it has its codes: decoding, all
gradients and the optimizer. `bare` steps are without AuxK; `train` is visae.sae.trainer.train with it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from protocol import serve, settings
from torch import Tensor
from training_protocol import Batches
from visae_training import sae_settings, started

from visae.sae.run import TrainingRun
from visae.sae.trainer import train
from visae.sae.variants.selection import BLOCK
from visae.sae.variants.variant import sparse_pass

# Side of the square matrices whose product stands for what the machine can do.
SIDE = 3072


def main() -> None:
    given = settings()
    torch.set_num_threads(given["threads"])
    batches = Batches(Path(given["data"]), given["d_model"], given["batch_size"])
    bare = {**given, "options": {"auxk": 0}}
    run = started(bare, batches)
    measures: dict[str, Callable[[int], dict[str, float]]] = {
        "step": lambda steps: _a_step(run.advance, batches, steps),
        "matmul": lambda steps: _a_step(_encoder_products(run), batches, steps),
        "rest": lambda steps: _a_step(_sparse_rest(run, batches), batches, steps),
        "machine": _machine,
        "train": lambda steps: _train(given, steps),
    }
    run.advance(batches[0])
    serve(lambda what, steps: measures[what](steps))


def _a_step(step: Callable[[Tensor], object], batches: Batches, steps: int) -> dict[str, float]:
    seconds = 0.0
    for number in range(steps):
        rows = batches[number]
        started_at = time.perf_counter()
        step(rows)
        seconds += time.perf_counter() - started_at
    return {"value": seconds / steps}


def _encoder_products(run: TrainingRun) -> Callable[[Tensor], None]:
    weights = run.sae.weights
    buffer = torch.empty(BLOCK, run.sae.width)

    def products(rows: Tensor) -> None:
        for block in rows.split(BLOCK):
            torch.addmm(weights.encoder_bias, block, weights.encoder.T, out=buffer[: len(block)])

    return products


def _sparse_rest(run: TrainingRun, batches: Batches) -> Callable[[Tensor], None]:
    """What is left of a step when its codes are known: decoding, all gradients, the optimizer."""
    weights, inputs = run.sae.weights, run.sae.normalized(batches[0])
    codes, _ = run.sae.variant.training_codes(weights, inputs, 0)
    parameters = [parameter.detach().clone().requires_grad_() for parameter in weights]
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)

    def rest(rows: Tensor) -> None:
        for parameter, gradient in zip(parameters, sparse_pass(weights, rows, rows, codes).gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return rest


def _machine(times: int) -> dict[str, float]:
    """GFLOP/s of a large product."""
    left, right, out = torch.randn(3, SIDE, SIDE)
    torch.mm(left, right, out=out)
    started_at = time.perf_counter()
    for _ in range(times):
        torch.mm(left, right, out=out)
    return {"value": times * 2 * SIDE**3 / (time.perf_counter() - started_at) / 1e9}


def _train(given: dict[str, Any], steps: int) -> dict[str, float]:
    """Tokens a second that a whole training run logs."""
    options = {"steps": steps, "log_every": 5, "checkpoint_every": steps, "warmup_steps": 1}
    section = sae_settings({**given, "options": options})
    with tempfile.TemporaryDirectory(dir=given["scratch"]) as folder:
        summary = train(section, [Path(given["manifest"])], Path(folder) / "sae", Path(folder) / "work", "cpu")
    return {"value": summary["tokens_per_second"], "dead_share": summary["dead_share"]}


if __name__ == "__main__":
    main()
