"""How well SAEs reconstruct at equal sparsity, beside sparsify, SAELens, dictionary_learning, overcomplete and saev.

topk, batchtopk, relu
           held-out error after 100, 500 and 3,000 steps, everyone with the same number of codes a token
planted   how many atoms of a known dictionary are found
dead       latents that end up dead with visae's defaults

The error is normalized: squared error over squared deviation from the mean, in raw units, by one function for all. Data
are the patches of the embedded ViT-S/14 (layer 10) on the photographs of `$VISAE_DATA/imagenet-sample`, or without
VISAE_DATA on visae's own scenes. Every run is told its number of steps, and those of one seed see the same batches.
Each peer runs at its own defaults, its warm-up cut to a tenth of the run where it is longer, and at the learning rate
that was best of a few on a seed of its own; visae runs at its defaults alone. Peers with a normalization of their own
use it. TopK keeps k codes a token, BatchTopK k a token of each batch, also when it is measured. ReLU's penalties,
whoever's they are, are steered to k codes a token; who ends elsewhere is trained twice more, steered to fewer and to
more, and the error at k between the two is taken. Values are medians over three seeds for visae and for the best peers,
those within 3 % of the very best on the first seed; other peers stay at that seed. Ratios are visae over the contender.

Finished runs are kept in ~/.cache/visae/bench/scratch/quality/runs.jsonl, so a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.harness import Measurement, parser, run_parts
from bench.quality import dead, planted
from bench.quality.data import Activations, activations
from bench.quality.judged import rows_of
from bench.quality.runs import SEEDS, KeptRuns, Worker, compare
from bench.trainer.contenders import CONTENDERS, Contender

WIDTH, BATCH, K = 768, 256, 32
STEPS = (100, 500, 3000)
# What each peer does to activations before it trains on them.
NORMALIZATIONS = {"saelens": "mean norm", "dictionary_learning": "unit square", "saev": "centred"}
# Learning rates tried beside a peer's own, by number of steps: for Adam, and for sign descent.
ADAM = {100: [3e-3, 1e-2, 3e-2], 500: [1e-3, 3e-3, 1e-2], 3000: [1e-3, 3e-3]}
SIGN = {100: [1e-2, 4e-2], 500: [5e-3, 1e-2], 3000: [4e-3, 8e-3]}
COMPARED = {
    variant: [contender for contender in CONTENDERS[variant] if contender.options.get("variant") is None]
    for variant in ("topk", "batchtopk", "relu")
}
# With --quick: one sparse peer and one dense one.
QUICK = {"visae", "sparsify, signum", "dictionary_learning", "saev"}


def main() -> int:
    made = parser(__doc__ or "", "quality.json")
    made.add_argument("--only-kept", action="store_true", help="run nothing: report the runs that are kept")
    arguments = made.parse_args()
    scratch = arguments.scratch / "quality"
    scratch.mkdir(parents=True, exist_ok=True)
    kept = KeptRuns(scratch / ("quick-runs.jsonl" if arguments.quick else "runs.jsonl"))
    return run_parts(made, arguments, _parts(arguments, scratch, kept))


def _parts(arguments: argparse.Namespace, scratch: Path, kept: KeptRuns) -> dict[str, Callable[[], list[Measurement]]]:
    """Name to what measures it."""
    quick, at_once, only_kept = arguments.quick, arguments.threads, arguments.only_kept

    def variant(name: str) -> list[Measurement]:
        return _compared(name, activations(scratch, quick), kept, scratch / "logs", quick, at_once, only_kept)

    return {
        **{name: partial(variant, name) for name in COMPARED},
        "planted": lambda: planted.measure(kept, quick, at_once, only_kept),
        "dead": lambda: dead.measure(scratch, kept, quick),
    }


def _compared(
    variant: str, data: Activations, kept: KeptRuns, logs: Path, quick: bool, at_once: int, only_kept: bool
) -> list[Measurement]:
    contenders = [contender for contender in COMPARED[variant] if not quick or contender.name in QUICK]
    fingerprint = data.fingerprint()
    workers = [
        Worker(
            contender,
            _settings(contender, variant, data),
            fingerprint,
            kept,
            logs / variant / f"{number}.log",
            K if variant == "relu" else None,
            only_kept,
        )
        for number, contender in enumerate(contenders)
    ]
    grids = {contender.name: _grid(contender, quick) for contender in contenders}
    study = compare(workers, grids, SEEDS[:1] if quick else SEEDS, at_once)
    return rows_of(f"{variant}, {data.name}", study)


def _settings(contender: Contender, variant: str, data: Activations) -> dict[str, object]:
    shapes: dict[str, object] = {"d_model": data.d_model, "width": WIDTH, "batch_size": BATCH, "k": K}
    if variant == "relu":
        shapes["k"] = WIDTH  # no code is dropped when it is measured
        if contender.peer == "visae":
            shapes["options"] = {"l1_warmup_steps": 0}  # steering takes its place
    files = {"data": str(data.train), "held_out": str(data.held_out)}
    return {**files, "threads": 1, "variant": variant, "normalization": NORMALIZATIONS.get(contender.peer), **shapes}


def _grid(contender: Contender, quick: bool) -> dict[int, list[float]]:
    """Number of steps to the learning rates to try."""
    rates = SIGN if contender.options.get("optimizer") == "signum" else ADAM
    return {
        steps: [] if contender.peer == "visae" or quick else rates[steps] for steps in (STEPS[:1] if quick else STEPS)
    }


if __name__ == "__main__":
    sys.exit(main())
