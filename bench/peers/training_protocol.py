"""The worker's side of a training contender: one SAE in one process, some timed steps for each line that comes in.

Each step gets the next batch of the same file, read outside the clock. A worker imports its peer inside `prepare`,
when standard output already goes to the log.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from protocol import settings
from quality_protocol import serve_quality
from torch import Tensor
from trainee import CannotRun, Prepare, Trainee

# Tokens on which the number of active latents is counted: few, so that counting does not raise the peak memory.
_COUNTED = 256


class Batches:
    """Batches of a file of float32 rows, in order, over and over, on a device."""

    def __init__(self, path: Path, d_model: int, size: int, device: str = "cpu") -> None:
        self.path, self.d_model, self.size, self.device = path, d_model, size, device
        self.count = path.stat().st_size // (4 * d_model * size)

    def __getitem__(self, number: int) -> Tensor:
        values = self.size * self.d_model
        offset = 4 * values * (number % self.count)
        rows = np.fromfile(self.path, np.float32, values, offset=offset).reshape(self.size, self.d_model)
        return torch.from_numpy(rows).to(self.device)


@torch.no_grad()
def start_sparse(trainee: Trainee, rows: Tensor, share: float) -> None:
    """Lower (or raise) encoder biases until each latent is active on that share of the rows."""
    assert trainee.encoder_bias is not None
    assert trainee.pre_activations is not None
    values = trainee.pre_activations(rows)
    rank = max(1, round((1 - share) * len(values)))
    trainee.encoder_bias.sub_(values.kthvalue(rank, dim=0).values)


def peak_megabytes(device: str = "cpu") -> float:
    """Peak resident memory of this process; on a GPU, the most that its tensors took there at once."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def serve_training(prepare: Prepare) -> None:
    """Prepare, say so (or why not), then do as many steps as each line asks for.

    Where `given["held_out"]` is set, train and measure SAEs instead: see `quality_protocol`.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a peer prints goes to the log
    given = settings()
    torch.set_num_threads(given["threads"])
    if "held_out" in given:
        return serve_quality(prepare, given, answers)
    torch.manual_seed(given["seed"])
    batches = Batches(Path(given["data"]), given["d_model"], given["batch_size"], given.get("device", "cpu"))
    try:
        trainee = prepare(given, batches)
    except CannotRun as reason:
        answers.write(json.dumps({"cannot": str(reason)}) + "\n")
        return
    if given.get("active_share"):
        start_sparse(trainee, batches[0][:1024], given["active_share"])
    answers.write("{}\n")
    done = 0
    for line in sys.stdin:
        steps = json.loads(line)["steps"]
        answers.write(json.dumps(_timed(trainee, batches, done, steps)) + "\n")
        done += steps
        gc.collect()


def _wait(device: str) -> None:
    """Until a GPU has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def _timed(trainee: Trainee, batches: Batches, first: int, steps: int) -> dict[str, float]:
    seconds = 0.0
    for number in range(first, first + steps):
        rows = batches[number]
        _wait(batches.device)
        started = time.perf_counter()
        trainee.step(rows)
        _wait(batches.device)
        seconds += time.perf_counter() - started
    megabytes = peak_megabytes(batches.device)
    with torch.no_grad():
        codes = trainee.codes(batches[first][:_COUNTED])
    return {
        "seconds": seconds,
        "tokens_a_second": steps * batches.size / seconds,
        "megabytes": megabytes,
        "l0": float((codes != 0).sum(1).float().mean()),
    }
