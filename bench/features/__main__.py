"""How fast latents are described, and in how much memory, beside DuckDB and saev.

statistics  every statistic of 6.4 million codes (200,000 patches x 32), beside DuckDB
large       the same of 100 million codes (20 million with --quick): memory
reading     all codes of one latent, from runs sorted by latent beside files sorted by picture
saev        activations to statistics and exemplars, beside saev's visuals

"common columns" are those that DuckDB computes too, in SQL on the same Parquet file: count, mean, largest value,
standard deviation, quantiles of active values, pictures. Every contender runs in a process of its own, of which the
peak resident memory is taken; contenders take turns, and values are medians over repetitions, ratios medians of the
quotients within a repetition, visae's over the contender's. saev is installed from PyPI into ~/.cache/visae/bench on
first use.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from bench.features.data import write_activations, write_features
from bench.harness import (
    FOLDER,
    Measurement,
    Target,
    interleaved,
    measurement,
    median_ratio,
    parser,
    repetitions,
    run_in_scratch,
)
from bench.peer_processes import peer_python

TWO_GIB = Target("value", "<", 2 * 2**30 / 1e6)
WHOLE, COMMON, DUCKDB = "visae, every statistic", "visae, common columns", "DuckDB, common columns"


def main() -> int:
    return run_in_scratch(parser(__doc__ or "", "features.json"), _parts)


def _parts(arguments: argparse.Namespace, scratch: Path) -> dict[str, Callable[[], list[Measurement]]]:
    """Name to what measures it."""
    quick, times, threads = arguments.quick, repetitions(arguments), arguments.threads
    few, many = 6_400_000, 20_000_000 if quick else 100_000_000
    return {
        "statistics": lambda: _statistics("statistics", scratch / "few", few, times, threads),
        "large": lambda: _statistics("large", scratch / "many", many, 1, threads, TWO_GIB),
        "reading": lambda: _reading(scratch / "reading", few if quick else 40_000_000, times, threads),
        "saev": lambda: _saev(scratch / "saev", 64 if quick else 512, times, threads),
    }


def _statistics(
    part: str, folder: Path, n_entries: int, times: int, threads: int, limit: Target | None = None
) -> list[Measurement]:
    write_features(folder, n_entries)
    jobs = {WHOLE: "statistics", COMMON: "common", DUCKDB: "duckdb"}
    seconds, megabytes = _in_turns(
        {name: {"job": job, "folder": str(folder)} for name, job in jobs.items()}, times, threads
    )
    at = f"{part}, {n_entries / 1e6:g} M codes"
    rows = []
    for name in jobs:
        ratio = None if name == DUCKDB else median_ratio(seconds, name, DUCKDB)
        rows.append(measurement(f"{at}: {name}", median(seconds[name]), "s", ratio))
    for name in jobs:
        ours = limit if name == WHOLE else None
        rows.append(measurement(f"{at}: {name}, peak memory", max(megabytes[name]), "MB", None, ours))
    return rows


def _reading(folder: Path, n_entries: int, times: int, threads: int) -> list[Measurement]:
    write_features(folder / "by latent", n_entries)
    write_features(folder / "by picture", n_entries, by_latent=False)
    names = {"sorted by latent in runs": "by latent", "sorted by picture": "by picture"}
    jobs = {name: {"job": "one latent", "folder": str(folder / place)} for name, place in names.items()}
    seconds, _ = _in_turns(jobs, times, threads)
    ours, other = names
    return [
        measurement(f"reading one latent of {n_entries / 1e6:g} M codes: {ours}", median(seconds[ours]), "s"),
        measurement(
            f"reading one latent of {n_entries / 1e6:g} M codes: {other}",
            median(seconds[other]),
            "s",
            median_ratio(seconds, ours, other),
        ),
    ]


def _saev(folder: Path, our_images: int, times: int, threads: int) -> list[Measurement]:
    """Patches a second; saev gets one of its batches, as all of them cost it the same."""
    their_images = 64
    write_activations(folder / "visae", our_images)
    write_activations(folder / "saev", their_images)
    jobs = {
        "visae": {"job": "from activations", "folder": str(folder / "visae"), "images": our_images},
        "saev": {"job": "saev", "folder": str(folder / "saev"), "images": their_images},
    }
    rates, megabytes = _in_turns(jobs, times, threads, measured="patches_a_second")
    rows = []
    for name in jobs:
        ratio = median_ratio(rates, "visae", name) if name == "saev" else None
        rows.append(measurement(f"saev, activations to statistics: {name}", median(rates[name]), "patches/s", ratio))
    for name in jobs:
        rows.append(measurement(f"saev, activations to statistics: {name}, peak memory", max(megabytes[name]), "MB"))
    return rows


def _in_turns(
    jobs: dict[str, dict[str, Any]], times: int, threads: int, measured: str = "seconds"
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """What was measured, and the peak memory in MB, of each job in each repetition."""
    megabytes: dict[str, list[float]] = {name: [] for name in jobs}

    def run(name: str) -> float:
        found = _process(jobs[name], threads)
        megabytes[name].append(found["megabytes"])
        return found[measured]

    return interleaved({name: lambda name=name: run(name) for name in jobs}, times), megabytes


def _process(job: dict[str, Any], threads: int) -> dict[str, float]:
    is_saev = job["job"] == "saev"
    worker = [FOLDER / "peers" / "saev_features.py"] if is_saev else ["-m", "bench.features.worker"]
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if is_saev:
        environment.pop("PYTHONPATH", None)
    command = [peer_python("saev" if is_saev else "visae"), *worker, json.dumps({**job, "threads": threads})]
    done = subprocess.run(command, env=environment, cwd=FOLDER.parent, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{job['job']} stopped:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
