"""Who trains what: contenders by variant, each a process of its own, timed in turns."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness import Samples, interleaved
from bench.peer_processes import Peer

D_MODEL, WIDTH, BATCH, K = 384, 6144, 4096, 32
SEED = 7
_FAILURES = (RuntimeError, OSError, subprocess.CalledProcessError)
# glibc keeps freed memory instead of handing it back to the kernel, which would page-fault it in again.
TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "536870912",
}


@dataclass(frozen=True)
class Contender:
    """One row of a comparison: a name, the environment, and what its worker is told besides the shapes."""

    name: str
    peer: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def script(self) -> str:
        """Worker in bench/peers."""
        return f"{self.peer}_training.py"


VISAE = Contender("visae", "visae")
SAELENS = Contender("SAELens", "saelens")
DICTIONARY_LEARNING = Contender("dictionary_learning", "dictionary_learning")
OVERCOMPLETE = Contender("overcomplete", "overcomplete")
PRISMA = Contender("ViT-Prisma", "prisma")
SAEV = Contender("saev", "saev")
SPARSIFY = (
    Contender("sparsify, signum", "sparsify", {"optimizer": "signum"}),
    Contender("sparsify, Adam", "sparsify", {"optimizer": "adam"}),
)
# saev has no TopK: what it has is timed beside the others' TopK.
SAEV_RELU = Contender("saev (its ReLU)", "saev", {"variant": "relu"})
ALL_THREE = (SAELENS, DICTIONARY_LEARNING, OVERCOMPLETE)
CONTENDERS = {
    "topk": (VISAE, *SPARSIFY, *ALL_THREE, SAEV_RELU, PRISMA),
    "batchtopk": (VISAE, *ALL_THREE),
    "jumprelu": (VISAE, *ALL_THREE),
    "relu": (VISAE, SAEV, *ALL_THREE, PRISMA),
}
# With --quick: the two that were the fastest peers, and the one that says why it is not there.
QUICK = {"visae", "sparsify, Adam", "dictionary_learning", "saev", "ViT-Prisma"}


@dataclass(frozen=True)
class Timing:
    """How long contenders are timed.

    Attributes
    ----------
    warm_up
        Steps before the first timed one.
    seconds
        Seconds that a repetition should take: slow contenders do fewer steps, at least `fewest`.
    fewest, most
        Bounds on the steps of a repetition.
    """

    repetitions: int
    warm_up: int
    seconds: float
    fewest: int
    most: int = 16

    def steps(self, seconds_a_step: float) -> int:
        """Steps of a repetition for a contender of that speed."""
        return max(self.fewest, min(self.most, round(self.seconds / seconds_a_step)))


@dataclass(frozen=True)
class Found:
    """What was measured of one variant.

    Attributes
    ----------
    rates
        Tokens a second, by contender and repetition.
    megabytes
        Peak memory of each contender's process.
    l0
        Codes a token of each contender, the mean over repetitions.
    missing
        Contenders that did not run, and why.
    """

    rates: Samples
    megabytes: dict[str, float]
    l0: dict[str, float]
    missing: dict[str, str]


def worker_settings(data: Path, threads: int, **more: Any) -> dict[str, Any]:
    """What every worker is told."""
    shapes = {"d_model": D_MODEL, "width": WIDTH, "batch_size": BATCH, "k": K}
    return {"data": str(data), "threads": threads, "seed": SEED, **shapes, **more}


def compare(
    contenders: list[Contender],
    settings: dict[str, Any],
    timing: Timing,
    logs: Path,
    environment: dict[str, str] | None = None,
    at_once: bool = False,
) -> Found:
    """Time contenders in turns, each in its process, all processes alive at once.

    Parameters
    ----------
    settings
        Of all workers; a contender's own options go before them.
    logs
        Folder for what the workers print.
    environment
        Further environment variables of all workers.
    at_once
        Whether they get ready side by side, which takes their memory at one time.
    """
    logs.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    answers: dict[str, list[dict[str, float]]] = {}
    running: dict[str, Callable[[], float]] = {}

    def ready(number: int) -> Peer | Exception:
        contender = contenders[number]
        log = logs / f"{contender.script}-{number}.log"
        try:
            return Peer(contender.peer, contender.script, {**settings, **contender.options}, log, environment)
        except _FAILURES as error:
            return error

    with ExitStack() as stack, ThreadPoolExecutor(len(contenders)) as pool:
        made_ready = (pool.map if at_once else map)(ready, range(len(contenders)))
        for contender, made in zip(contenders, made_ready, strict=True):
            if isinstance(made, Exception):
                missing[contender.name] = reason(made)
                continue
            peer = stack.enter_context(made)
            try:
                if "cannot" in peer.ready:
                    missing[contender.name] = peer.ready["cannot"]
                    continue
                warm = peer.repeat(steps=timing.warm_up)
                last = peer.repeat(steps=1)["seconds"]
            except _FAILURES as error:
                missing[contender.name] = reason(error)
                continue
            steps = timing.steps(min(last, warm["seconds"] / timing.warm_up))
            answers[contender.name] = []
            running[contender.name] = _timed(peer, steps, answers[contender.name])
        rates = interleaved(running, timing.repetitions) if running else {}
    return Found(
        rates,
        {name: max(answer["megabytes"] for answer in given) for name, given in answers.items()},
        {name: sum(answer["l0"] for answer in given) / len(given) for name, given in answers.items()},
        missing,
    )


def reason(error: Exception) -> str:
    """Why a contender did not run, in a line short enough for the table."""
    if isinstance(error, subprocess.CalledProcessError):
        return "its environment could not be installed"
    lines = [line.strip() for line in str(error).splitlines() if re.match(r"\s*[\w.]*(Error|Exception)\b", line)]
    return (lines or [str(error).strip().splitlines()[-1]])[-1][:100]


def _timed(peer: Peer, steps: int, answers: list[dict[str, float]]) -> Callable[[], float]:
    def run() -> float:
        answers.append(peer.repeat(steps=steps))
        return answers[-1]["tokens_a_second"]

    return run
