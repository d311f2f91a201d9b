"""What eight SAEs on one reading of a store cost, over eight runs alone: from a slow disk, from memory, and when large.

The slow disk is a real one slowed down: each read of a row group waits until its bytes would have come at SLOW_DISK.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch

from bench.harness import Measurement, Target, interleaved, measurement
from bench.trainer.contenders import D_MODEL, WIDTH, K
from visae.activations.store import ActivationStore
from visae.config.settings import TopKSettings
from visae.sae.trainee import Member
from visae.sae.trainer import train_together

MEMBERS = 8
# Bytes a second; what a busy network file system may give one reader.
SLOW_DISK = 50e6
SMALL_WIDTH = D_MODEL
SHARE = Target("ratio", "<", 0.7)


def measure_sweep(manifest: Path, repetitions: int, steps: int, large_steps: int, scratch: Path) -> list[Measurement]:
    """Compare together and alone; `steps` are those of the small SAEs, `large_steps` those of the large ones."""
    small, large = SMALL_WIDTH // D_MODEL, WIDTH // D_MODEL
    rows = []
    for name, expansion, n_steps, target in (
        (f"small SAEs, a disk of {SLOW_DISK / 1e6:.0f} MB/s", small, steps, SHARE),
        ("small SAEs, from memory", small, steps, None),
        (f"SAEs of width {WIDTH:,}, from memory", large, large_steps, None),
    ):
        disk = slow_disk(SLOW_DISK) if "disk" in name else nullcontext()
        members = [
            TopKSettings(variant="topk", expansion=expansion, k=K, steps=n_steps, learning_rate=1e-3 * (1 + number))
            for number in range(MEMBERS)
        ]
        with disk:
            samples = interleaved(
                {
                    "together": lambda members=members: seconds_of([members], manifest, scratch),
                    "alone": lambda members=members: seconds_of([[one] for one in members], manifest, scratch),
                },
                repetitions,
            )
        ratios = [a / b for a, b in zip(samples["together"], samples["alone"], strict=True)]
        rows.append(measurement(f"sweep: {MEMBERS} {name}, together", median(samples["together"]), "s"))
        rows.append(measurement(f"sweep: {MEMBERS} {name}, one by one", median(samples["alone"]), "s"))
        cost = median(ratios)
        rows.append(measurement(f"sweep: {MEMBERS} {name}, together over one by one", cost, "x", cost, target))
    return rows


def seconds_of(runs: list[list[TopKSettings]], manifest: Path, scratch: Path) -> float:
    """Seconds that the runs take one after the other, each with all of its SAEs together."""
    started = time.monotonic()
    for settings in runs:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            members = [
                Member(one, Path(folder, "made", str(number)), Path(folder, "work", str(number)))
                for number, one in enumerate(settings)
            ]
            train_together(members, [manifest], "cpu")
    return time.monotonic() - started


@contextmanager
def slow_disk(bytes_a_second: float) -> Iterator[None]:
    """Let all reads of row groups together have that many bytes a second."""
    turn, true = threading.Lock(), ActivationStore.read_group

    def read_group(*given: Any) -> torch.Tensor:
        started = time.monotonic()
        found = true(*given)
        with turn:
            time.sleep(max(0.0, found.nbytes / bytes_a_second - (time.monotonic() - started)))
        return found

    with mock.patch.object(ActivationStore, "read_group", read_group):
        yield
