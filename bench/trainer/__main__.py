"""How many tokens a second SAEs train on, beside sparsify, saev, SAELens, dictionary_learning and overcomplete.

topk        TopK, k 32 (saev, which has none, with its ReLU)
batchtopk  BatchTopK, k 32 on average
jumprelu   JumpReLU
relu        ReLU and L1, from each one's own start and from a sparse one
bound       a TopK step beside its encoder matmul, its sparse rest and the machine's large matmul
real        a training run from a store beside the bare step
sweep       eight SAEs on one reading of a store beside eight runs

All at d_model 384, width 6144, batches of 4096, float32, on one file of planted sparse data, batches read outside the
clock. Each contender, visae too, is a process of its own with as many torch threads, and does its own step: module,
loss, optimizer, gradient clipping, normalization, bookkeeping; no logging, checkpoints or data loading. Contenders
take turns; values are medians over repetitions, ratios are visae over the contender, medians of the quotients within a
repetition. "tuned" is with glibc keeping freed memory (MALLOC_MMAP_MAX_=0 and so on) in all processes. "sparse" starts
all encoders with biases at which each latent is active on 1 % of the rows. Peers are installed from PyPI into
~/.cache/visae/bench on first use; what cannot run is a row that says why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.harness import Measurement, parser, repetitions, run_in_scratch
from bench.planted import write_planted
from bench.trainer.contenders import (
    BATCH,
    CONTENDERS,
    D_MODEL,
    QUICK,
    TUNED,
    Contender,
    Timing,
    compare,
    worker_settings,
)
from bench.trainer.judged import rows_of
from bench.trainer.limits import measure_limits, measure_real, stored
from bench.trainer.sweep import measure_sweep

# Share of the rows that each latent starts out active on in the sparse comparison, and what keeps visae there: its
# learning rate is several times its peers', so its L1 has to be larger too.
SPARSE_SHARE = 0.01
SPARSE_OPTIONS = {"visae": {"options": {"l1": 1e-2, "l1_warmup_steps": 0}}, "saelens": {"l1": 5.0}}
HOW = {"as run": None, "tuned": TUNED, "sparse, tuned": TUNED}


def main() -> int:
    return run_in_scratch(parser(__doc__ or "", "trainer.json"), _parts)


def _parts(arguments: argparse.Namespace, scratch: Path) -> dict[str, Callable[[], list[Measurement]]]:
    """Name to what measures it."""
    quick, times, threads = arguments.quick, repetitions(arguments), arguments.threads
    data = scratch / "planted.bin"
    write_planted(data, 24 * BATCH, D_MODEL)
    timing = Timing(times, warm_up=1, seconds=0.5, fewest=1) if quick else Timing(times, 2, seconds=3, fewest=1)

    def variant(name: str, *hows: str) -> list[Measurement]:
        return [row for how in hows for row in _compared(name, how, data, threads, timing, scratch, quick)]

    return {
        "topk": partial(variant, "topk", "as run", "tuned"),
        "batchtopk": partial(variant, "batchtopk", "as run", *([] if quick else ["tuned"])),
        "jumprelu": partial(variant, "jumprelu", "as run", *([] if quick else ["tuned"])),
        "relu": partial(variant, "relu", "as run", "tuned", "sparse, tuned"),
        "bound": lambda: measure_limits(data, threads, times, 2 if quick else 8, scratch / "bound.log"),
        "real": lambda: measure_real(
            stored(data, scratch), data, threads, times, 15 if quick else 60, scratch / "real"
        ),
        "sweep": lambda: measure_sweep(stored(data, scratch), min(times, 3), 10 if quick else 40, 3, scratch),
    }


def _compared(
    variant: str, how: str, data: Path, threads: int, timing: Timing, scratch: Path, quick: bool
) -> list[Measurement]:
    given = worker_settings(data, threads, variant=variant)
    contenders = [contender for contender in CONTENDERS[variant] if not quick or contender.name in QUICK]
    if how.startswith("sparse"):
        given["active_share"] = SPARSE_SHARE
        contenders = [_sparse(contender) for contender in contenders]
    logs = scratch / "logs" / variant / how.replace(", ", "-").replace(" ", "-")
    return rows_of(variant, how, compare(contenders, given, timing, logs, HOW[how]))


def _sparse(contender: Contender) -> Contender:
    """Same contender with what keeps its codes sparse."""
    return replace(contender, options={**contender.options, **SPARSE_OPTIONS.get(contender.peer, {})})


if __name__ == "__main__":
    sys.exit(main())
