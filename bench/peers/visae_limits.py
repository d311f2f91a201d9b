"""What bounds visae's TopK step, measured in one process: the step, its parts, the machine, and a whole training run.

`rest` is a step whose encoder products return at once and leave in the buffer what an earlier step put there, so that
all else happens to real pre-activations. `bare` steps are without AuxK; `train` is visae.sae.trainer.train with it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from protocol import serve, settings
from torch import Tensor
from training_protocol import Batches
from visae_training import sae_settings, started

from visae.sae.run import TrainingRun
from visae.sae.selection import BLOCK
from visae.sae.trainer import train

# Side of the square matrices whose product stands for what the machine can do.
SIDE = 3072


def main() -> None:
    given = settings()
    torch.set_num_threads(given["threads"])
    batches = Batches(Path(given["data"]), given["d_model"], given["batch_size"])
    bare = {**given, "options": {"auxk": 0}}
    run, hollow = started(bare, batches), started(bare, batches)
    measures: dict[str, Callable[[int], dict[str, float]]] = {
        "step": lambda steps: _a_step(run.advance, batches, steps),
        "matmul": lambda steps: _a_step(_encoder_products(run), batches, steps),
        "rest": lambda steps: _rest(hollow, batches, steps),
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


def _rest(run: TrainingRun, batches: Batches, steps: int) -> dict[str, float]:
    """Steps without the encoder's products; a mistake if they were not found."""
    run.advance(batches[0])
    with _without_encoder(run.sae.width) as left_out:
        found = _a_step(run.advance, batches, steps)
    if sum(left_out) != steps * batches.size:
        raise RuntimeError(f"{sum(left_out)} rows of encoder products were left out, not {steps * batches.size}")
    return found


@contextmanager
def _without_encoder(width: int) -> Iterator[list[int]]:
    """Skip every torch.addmm into a given (rows, width); the rows of each are listed."""
    left_out: list[int] = []
    true = torch.addmm

    def addmm(*parts: Any, out: Tensor | None = None, **more: Any) -> Tensor:
        if out is None or out.shape[1] != width:
            return true(*parts, out=out, **more)
        left_out.append(len(out))
        return out

    with mock.patch.object(torch, "addmm", addmm):
        yield left_out


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
