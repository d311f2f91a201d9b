"""How near visae's TopK step comes to what the machine allows, and what a real run adds to it."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np

from bench.harness import Measurement, Samples, Target, interleaved, measurement
from bench.peer_processes import Peer
from bench.trainer.contenders import BATCH, D_MODEL, WIDTH, K, worker_settings
from visae.activations.given import write_store

NEAR_BOUND, NEAR_BARE = Target("ratio", ">=", 0.7), Target("ratio", "<", 1.15)
TOKENS_A_PICTURE = 256
# The encoder's product, and four sparse ones: the decode, the gradient of the codes, and of both weights.
USEFUL_GFLOP = 2 * BATCH * D_MODEL * (WIDTH + 4 * K) / 1e9


def measure_limits(data: Path, threads: int, repetitions: int, steps: int, log: Path) -> list[Measurement]:
    """Compare a step with its parts and with the machine."""
    with Peer("visae", "visae_limits.py", worker_settings(data, threads, variant="topk"), log) as worker:
        contenders = {
            what: lambda what=what: worker.repeat(what=what, steps=steps)["value"]
            for what in ("step", "matmul", "rest", "machine")
        }
        return limit_rows(interleaved(contenders, repetitions))


def limit_rows(samples: Samples) -> list[Measurement]:
    """Rows from seconds a step, of the matmul alone and of the rest alone, and the machine's GFLOP/s."""
    zipped = list(zip(samples["step"], samples["matmul"], samples["rest"], samples["machine"], strict=True))
    of_bound = median((matmul + rest) / step for step, matmul, rest, _ in zipped)
    of_matmul = median(matmul / step for step, matmul, _, _ in zipped)
    of_machine = median(USEFUL_GFLOP / step / machine for step, _, _, machine in zipped)
    step, matmul, rest, machine = (median(samples[name]) for name in ("step", "matmul", "rest", "machine"))
    return [
        measurement("bound: a TopK step", BATCH / step, "tokens/s"),
        measurement("bound: encoder matmul and sparse rest", BATCH / (matmul + rest), "tokens/s"),
        measurement("bound: step over matmul and sparse rest", of_bound, "x", of_bound, NEAR_BOUND),
        measurement("bound: encoder matmul alone", BATCH / matmul, "tokens/s", of_matmul),
        measurement("bound: sparse rest alone", 1e3 * rest, "ms a step"),
        measurement("machine: large matmul", machine, "GFLOP/s"),
        measurement("machine: useful FLOPs of a step", USEFUL_GFLOP / step, "GFLOP/s", of_machine),
    ]


def stored(data: Path, scratch: Path) -> Path:
    """Manifest of a store with the planted data, made where it is not there yet."""
    manifest = scratch / "store" / "manifest.json"
    if not manifest.is_file():
        rows = np.fromfile(data, np.float32).reshape(-1, TOKENS_A_PICTURE, D_MODEL)
        held_out = len(rows) // 8
        splits = {"train": len(rows) - held_out, "val": held_out}
        manifest = write_store(manifest.parent, rows, list(range(TOKENS_A_PICTURE)), splits)
    return manifest


def measure_real(
    manifest: Path, data: Path, threads: int, repetitions: int, steps: int, scratch: Path
) -> list[Measurement]:
    """Compare whole training runs from a store with bare steps."""
    scratch.mkdir(parents=True, exist_ok=True)
    given = worker_settings(data, threads, variant="topk", manifest=str(manifest), scratch=str(scratch))
    dead: list[float] = []
    with Peer("visae", "visae_limits.py", given, scratch / "real.log") as worker:

        def real() -> float:
            answer = worker.repeat(what="train", steps=steps)
            dead.append(answer["dead_share"])
            return answer["value"]

        def bare() -> float:
            return BATCH / worker.repeat(what="step", steps=steps)["value"]

        samples = interleaved({"bare": bare, "real": real}, repetitions)
    return real_rows(samples, median(dead))


def real_rows(samples: Samples, dead_share: float) -> list[Measurement]:
    """Rows from tokens a second of bare steps and of whole runs."""
    cost = median(bare / real for bare, real in zip(samples["bare"], samples["real"], strict=True))
    return [
        measurement("real: bare TopK step", median(samples["bare"]), "tokens/s"),
        measurement("real: training from a store", median(samples["real"]), "tokens/s"),
        measurement("real: dead latents that AuxK serves, at the end", 100 * dead_share, "%"),
        measurement("real: cost over the bare step", cost, "x", cost, NEAR_BARE),
    ]
