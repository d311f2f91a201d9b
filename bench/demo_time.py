"""Time the demo of two checkouts in turns: `python -m bench.demo_time BEFORE AFTER`.

Each runs the whole workflow of its own config/config.yaml into an empty folder of its own, with this script's Python,
so that neither waits for a set-up; the wheels of the embedded networks are fetched once before. Prints wall and
processor seconds of every run, their medians and the ratio, then compares the tables of the last two runs
(bench.same_numbers). Exits 1 where the ratio of wall times is above `--at-most` or a number differs.

Times mean something on a machine that does nothing else: the load before each run is printed too.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Run(NamedTuple):
    """Seconds that one run took: on the clock, and of all its processes."""

    wall: float
    processor: float


def run_demo(checkout: Path, folder: Path, cores: int) -> Run:
    """Run a checkout's demo into an empty folder; RuntimeError with the end of its log where it fails."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", checkout / "Snakefile", "--directory", folder]
    command += ["--configfile", checkout / "config/config.yaml", "--cores", str(cores), "--quiet", "rules", "host"]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    # What the checkout sets itself, and what decides how many threads compute, is not taken from the shell.
    for name in ("OMP_NUM_THREADS", "GLIBC_TUNABLES"):
        environment.pop(name, None)
    before, started = _processor_seconds(), time.monotonic()
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
    found = Run(time.monotonic() - started, _processor_seconds() - before)
    if done.returncode:
        raise RuntimeError(f"{checkout}: the demo failed: {done.stderr[-2000:]}")
    return found


def _processor_seconds() -> float:
    """User and system time of all ended processes that this one started, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratio_of_medians(before: list[float], after: list[float]) -> float:
    """What the second takes of what the first takes."""
    return median(after) / median(before)


def main() -> None:
    """Print the times of both, their ratio, and whether the tables are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout of the version before")
    parser.add_argument(
        "after", type=Path, nargs="?", default=ROOT, help="checkout of the version after; default: this"
    )
    parser.add_argument("--times", type=int, default=3, help="runs of each")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--at-most", type=float, default=0.75, help="ratio of wall times to reach")
    asked = parser.parse_args()
    checkouts = {"before": asked.before.resolve(), "after": asked.after.resolve()}
    runs: dict[str, list[Run]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(asked.times):
            for name, checkout in checkouts.items():
                load = os.getloadavg()[0]
                # The last folders stay for the comparison, those before make room.
                folder = Path(scratch, name if number == asked.times - 1 else f"{name}-{number}")
                folder.mkdir()
                runs[name].append(run_demo(checkout, folder, asked.cores))
                found = runs[name][-1]
                print(
                    f"{name}: {found.wall:.1f} s, {found.processor:.1f} s of processors (load {load:.1f})", flush=True
                )
        ratios = {}
        for kind in Run._fields:
            before, after = ([getattr(run, kind) for run in runs[name]] for name in checkouts)
            ratios[kind] = ratio_of_medians(before, after)
            print(f"{kind}: median {median(before):.1f} s before, {median(after):.1f} s after: {ratios[kind]:.2f}")
        folders = [str(Path(scratch, name, "results")) for name in checkouts]
        same = subprocess.run([sys.executable, "-m", "bench.same_numbers", *folders], cwd=ROOT).returncode == 0
    sys.exit(not (same and ratios["wall"] <= asked.at_most))


if __name__ == "__main__":
    main()
