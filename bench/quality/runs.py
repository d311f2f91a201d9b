"""Training runs of a comparison of quality: each is kept when it is done, so that a stopped benchmark goes on."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from visae_training import sae_settings

from bench.harness import FOLDER
from bench.peer_processes import PINS, Peer
from bench.trainer.contenders import Contender, reason
from visae.config.settings import AnySae
from visae.files import file_sha256
from visae.provenance import code_fingerprint

OURS = "visae"
# Learning rates are chosen on a seed that nothing else uses.
SEEDS, TUNING_SEED = (1, 2, 3), 1001
# Peers that are at most so much behind the best of them on the first seed are trained on the others too, as visae is;
# seeds mostly differ by less than a hundredth.
CLOSE = 1.03
# Where a steered penalty ends further than NEAR from the wanted number of codes, two more runs are steered AROUND it.
NEAR, AROUND = 0.02, (0.85, 1.2)
NOT_KEPT = "not measured yet"


class KeptRuns:
    """Results by the hash of all that made them, one JSON object a line; safe to write from several threads."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock, self._found = path, threading.Lock(), {}
        lines = path.read_text().splitlines() if path.is_file() else []
        for line in lines:
            try:
                kept = json.loads(line)
            except json.JSONDecodeError:  # cut off when the benchmark was killed
                continue
            self._found[kept["key"]] = kept["result"]

    @staticmethod
    def key(made_by: dict[str, Any]) -> str:
        """Hash of what makes a run."""
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:24]

    def get(self, made_by: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result of a run, if it is kept."""
        return self._found.get(self.key(made_by))

    def keep(self, made_by: dict[str, Any], result: dict[str, Any]) -> None:
        """Add a result."""
        with self._lock:
            self._found[self.key(made_by)] = result
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write("\n" * (file.tell() > 0 and not self._ends_with_newline()))
                file.write(json.dumps({"key": self.key(made_by), "made_by": made_by, "result": result}) + "\n")

    def _ends_with_newline(self) -> bool:
        return self.path.read_bytes().endswith(b"\n")


class NotKept(RuntimeError):
    """A run that would have to be made first."""


class NotSteered(RuntimeError):
    """An SAE whose penalty cannot be steered to the wanted number of codes."""


class Worker:
    """A contender's process, started when the first run is not kept yet.

    Parameters
    ----------
    settings
        What all runs share: data, shapes, variant, normalization.
    data
        Hash of the data.
    l0
        Codes a token that a penalty is to be steered to; None where a setting decides.
    only_kept
        Start nothing: runs that are not kept are errors.
    """

    def __init__(
        self,
        contender: Contender,
        settings: dict[str, Any],
        data: str,
        kept: KeptRuns,
        log: Path,
        l0: float | None = None,
        only_kept: bool = False,
    ) -> None:
        self.contender, self.kept, self.log, self.l0, self.only_kept = contender, kept, log, l0, only_kept
        self.settings = {**settings, **contender.options}
        paths = {"data", "held_out", "threads"}
        shared = {name: value for name, value in self.settings.items() if name not in paths}
        self._made_by = {"contender": contender.name, "data": data, "code": _code(contender), **shared}
        self._peer: Peer | None = None

    def made_by(self, **options: Any) -> dict[str, Any]:
        """Return all that decides what comes of a run."""
        if self.contender.peer != "visae":
            return {**self._made_by, **options}
        return {**self._made_by, "defaults": described(sae_settings({**self.settings, **options})), **options}

    def run(self, **options: Any) -> dict[str, Any]:
        """Train and measure one SAE, or return what was measured earlier.

        Raises
        ------
        RuntimeError
            If the contender cannot; says why.
        """
        made_by = self.made_by(**options)
        found = self.kept.get(made_by)
        if found is None:
            if self.only_kept:
                raise NotKept(f"Error: {NOT_KEPT}")
            if self._peer is None:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                self._peer = Peer(self.contender.peer, self.contender.script, self.settings, self.log)
            ready = self._peer.ready
            found = ready if "cannot" in ready else self._peer.repeat(**options)
            self.kept.keep(made_by, found)
        if "cannot" in found:
            raise RuntimeError(f"Error: {found['cannot']}")
        return found

    def measured(self, **options: Any) -> dict[str, Any]:
        """As `run`; where a penalty is steered, what an SAE with the wanted number of codes has."""
        if self.l0 is None:
            return self.run(**options)
        found = self.run(l0=self.l0, **options)
        if abs(found["l0"] / self.l0 - 1) <= NEAR:
            return found
        return at_equal_l0([self.run(l0=share * self.l0, **options) for share in AROUND], self.l0)

    def close(self) -> None:
        """End the process."""
        if self._peer is not None:
            self._peer.__exit__()


def at_equal_l0(runs: list[dict[str, Any]], l0: float) -> dict[str, Any]:
    """What two runs give at a number of codes a token: their errors' logarithm is linear in that of the number.

    Raises
    ------
    NotSteered
        If the number is far from both runs', or both have the same.
    """
    few, many = sorted(runs, key=lambda run: run["l0"])
    if not (0.8 * few["l0"] < l0 < 1.25 * many["l0"] and 1.05 * few["l0"] < many["l0"]):
        raise NotSteered(f"Error: steered to around {l0:g} codes a token, it has {few['l0']:.1f} and {many['l0']:.1f}")
    place = math.log(l0 / few["l0"]) / math.log(many["l0"] / few["l0"])
    nmse = few["nmse"] ** (1 - place) * many["nmse"] ** place
    return {"nmse": nmse, "l0": l0, "silent_share": (few["silent_share"] + many["silent_share"]) / 2}


@dataclass(frozen=True)
class Outcome:
    """What one contender reached after some steps, medians over seeds.

    Attributes
    ----------
    how
        `defaults`, or the learning rate.
    seeds
        How many.
    """

    name: str
    how: str
    steps: int
    seeds: int
    nmse: float
    l0: float
    silent_share: float


@dataclass(frozen=True)
class Study:
    """Outcomes of all contenders, and who could not run and why."""

    outcomes: list[Outcome]
    missing: dict[str, str]


# Number of steps to the learning rates that are tried beside a contender's own.
Grid = dict[int, list[float]]


def compare(workers: list[Worker], grids: dict[str, Grid], seeds: tuple[int, ...], at_once: int) -> Study:
    """Run all contenders, some at once, each in its own process: all on the first seed, then the best on the others.

    Parameters
    ----------
    grids
        By the contenders' names.
    """
    outcomes: list[Outcome] = []
    missing: dict[str, str] = {}

    def tried(worker: Worker, steps: int) -> dict[float | None, float]:
        try:
            return first_errors(worker, steps, grids[worker.contender.name][steps], seeds[0])
        except Exception as error:  # whatever stops a peer is a row of the table
            missing[f"{steps} steps: {worker.contender.name}"] = reason(error).removeprefix("Error: ")
            return {}

    try:
        with ThreadPoolExecutor(at_once) as pool:
            for steps in sorted({steps for grid in grids.values() for steps in grid}):
                errors = list(pool.map(tried, workers, [steps] * len(workers)))
                of_peers = [
                    error
                    for worker, found in zip(workers, errors, strict=True)
                    for error in found.values()
                    if worker.contender.name != OURS
                ]
                limit = CLOSE * min(of_peers, default=math.inf)
                found = pool.map(partial(_outcomes, steps=steps, seeds=seeds, limit=limit), workers, errors)
                outcomes += [outcome for part in found for outcome in part]
    finally:
        for worker in workers:
            worker.close()
    return Study(outcomes, missing)


def first_errors(worker: Worker, steps: int, rates: list[float], seed: int) -> dict[float | None, float]:
    """Errors on a seed by learning rate: None for a contender's own, and the one that was best on the tuning seed.

    Rates at which it cannot be steered to the wanted number of codes are left out.

    Raises
    ------
    NotSteered
        If it cannot be at any rate.
    """
    tuning: dict[float, float] = {}
    for rate in rates:
        with suppress(NotSteered):
            tuning[rate] = worker.measured(steps=steps, seed=TUNING_SEED, learning_rate=rate)["nmse"]
    found: dict[float | None, float] = {}
    why: NotSteered | None = None
    for tried in [None, *sorted(tuning, key=tuning.__getitem__)[:1]]:
        try:
            found[tried] = worker.measured(steps=steps, seed=seed, **_given(tried))["nmse"]
        except NotSteered as error:
            why = error
    if why is not None and not found:
        raise why
    return found


def _outcomes(
    worker: Worker, errors: dict[float | None, float], steps: int, seeds: tuple[int, ...], limit: float
) -> list[Outcome]:
    """Medians over seeds for each learning rate; over the first one alone for peers with errors above the limit."""
    found = []
    for rate, error in errors.items():
        runs = []
        with suppress(NotKept, NotSteered):
            for seed in seeds if worker.contender.name == OURS or error <= limit else seeds[:1]:
                runs.append(worker.measured(steps=steps, seed=seed, **_given(rate)))
        medians = {name: median(run[name] for run in runs) for name in ("nmse", "l0", "silent_share")}
        how = "defaults" if rate is None else f"learning rate {rate:g}"
        found.append(Outcome(worker.contender.name, how, steps, len(runs), **medians))
    return found


def _given(rate: float | None) -> dict[str, float]:
    return {} if rate is None else {"learning_rate": rate}


def _code(contender: Contender) -> dict[str, Any]:
    """What decides what a contender's process does, beside its settings."""
    scripts = (contender.script, "quality_protocol.py", "trainee.py", "training_protocol.py")
    hashes = {script: file_sha256(FOLDER / "peers" / script) for script in scripts}
    return {**hashes, "package": own_code() if contender.peer == "visae" else PINS[contender.peer]}


def described(settings: AnySae) -> str:
    """Settings, and the learning rates that they leave to their defaults."""
    return f"{settings}, rates {settings.peak_learning_rate:g} and {settings.bias_multiple:g} x"


def own_code() -> list[str]:
    """Hashes of the parts of visae that train here; defaults of settings are not among them."""
    return [code_fingerprint("visae.sae.initial"), code_fingerprint("visae.sae.run")]
