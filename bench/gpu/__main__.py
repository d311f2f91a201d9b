"""What visae does on one GPU, on a bare machine: torch, timm, this checkout and the wheels in bench/wheels; no network.

environment  the device, versions, and how fast its matrix products are
gradients    sparse gradients of TopK and ReLU beside dense autograd's, at full size
tests        the tests marked `gpu`
extraction   pictures a second of a ViT-B/16 in bfloat16 and float32 beside its bare forward passes, and memory
trainer      tokens a second of a TopK SAE beside sparsify and dictionary_learning, and memory
quality      normalized MSE of the same after equally many steps
memory       peak memory of training by width
variants     tokens a second of visae's BatchTopK and ReLU
large        the trainer at a batch four times as large
parts        milliseconds of the parts of a TopK step

At d_model 768, 24,576 latents, k 32, batches of 4,096. Each section is a process of its own with a limit of time: one
that fails or hangs takes nothing with it. The results file is written anew after each. What does not fit into
`--budget` is a row that says so. `--device cpu --tiny` runs all of it in small where there is no GPU. Contenders of a
comparison take turns, each a process of its own; values are medians, ratios medians of the quotients within a
repetition. `make bench-gpu-wheels` gets the wheels, on a machine with a network.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from bench.gpu.report import Report  # noqa: E402
from bench.harness import CACHE, FOLDER, Measurement, measurement, table  # noqa: E402
from bench.peer_processes import ONE_PYTHON  # noqa: E402
from visae.files import read_json, write_json  # noqa: E402

WHEELS = FOLDER / "wheels"
# With less left than this, no section is started.
LEAST_SECONDS = 10.0
# How the unit of a row begins that stands for the rest of a section.
BROKEN = "not run: it "


@dataclass(frozen=True)
class Section:
    """A part of the benchmark.

    Attributes
    ----------
    module
        Module of this folder whose function of the section's name measures it.
    limit
        Seconds after which it is stopped; the budget may leave fewer.
    """

    module: str
    limit: float


# In the order of what would be missed most.
SECTIONS = {
    "environment": Section("bench.gpu.device", 60),
    "gradients": Section("bench.gpu.device", 90),
    "tests": Section("bench.gpu.device", 150),
    "extraction": Section("bench.gpu.extraction", 110),
    "trainer": Section("bench.gpu.trainer", 150),
    "quality": Section("bench.gpu.trainer", 110),
    "memory": Section("bench.gpu.trainer", 60),
    "variants": Section("bench.gpu.trainer", 70),
    "large": Section("bench.gpu.trainer", 90),
    "parts": Section("bench.gpu.parts", 60),
}


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    made.add_argument("--tiny", action="store_true", help="so small that a CPU does it in under two minutes")
    made.add_argument("--budget", type=float, default=420, help="seconds for all of it")
    made.add_argument("--only", nargs="+", metavar="SECTION", choices=list(SECTIONS), default=list(SECTIONS))
    made.add_argument("--onto", type=Path, help="earlier results file, whose rows of other sections are taken over")
    made.add_argument("--check", action="store_true", help="exit with 1 where a stated target is missed")
    made.add_argument("--output", type=Path, help="results file (bench/results/gpu.json; with --tiny build/gpu.json)")
    made.add_argument("--scratch", type=Path, default=CACHE / "scratch", help="folder, on a real disk, for the data")
    made.add_argument("--section", help=argparse.SUPPRESS)
    made.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.section:
        return _measure_section(arguments)
    started = time.monotonic()
    output = arguments.output or (ROOT / "build/gpu.json" if arguments.tiny else FOLDER / "results/gpu.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        environment = _environment(Path(scratch))
        rows = _kept(arguments.onto, arguments.only)
        for name in arguments.only:
            left = arguments.budget - (time.monotonic() - started)
            rows += _section(name, left, arguments, Path(scratch), environment)
            write_json(output, [asdict(row) for row in rows])
    print(table(rows))
    print(f"written: {output}, after {time.monotonic() - started:.0f} s")
    broken = any(row.unit.startswith(BROKEN) for row in rows)
    return int(broken or (arguments.check and any(row.holds is False for row in rows)))


# --- the parent's side ---------------------------------------------------------------------------


def _kept(path: Path | None, measured: list[str]) -> list[Measurement]:
    """Rows of an earlier results file that are of other sections."""
    rows = [] if path is None else [Measurement(**row) for row in read_json(path)]
    return [row for row in rows if re.split("[,:]", row.name)[0] not in measured]


def _environment(scratch: Path) -> dict[str, str]:
    """What sections run in: this checkout, and of the wheels what this Python has not got."""
    paths = [ROOT, ROOT / "src", *_unpacked(scratch / "site"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    more = {
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths if str(path)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        ONE_PYTHON: "1",
    }
    return {**os.environ, **more}


def _unpacked(site: Path) -> list[Path]:
    """Install wheels into a folder; what this Python cannot take is left out, and said."""
    print(f"Python {platform.python_version()} ({sys.executable}) on {platform.platform()}", flush=True)
    wheels = [wheel for wheel in sorted(WHEELS.glob("*.whl")) if not _installed(wheel.name.split("-")[0])]
    print(f"wheels that are not installed here: {', '.join(wheel.name for wheel in wheels) or 'none'}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--target", str(site)]
    if wheels and subprocess.run([*command, *wheels]).returncode != 0:
        for wheel in wheels:
            if subprocess.run([*command, wheel]).returncode != 0:
                print(f"{wheel.name}: this Python does not take it", flush=True)
    return [site] if wheels else []


def _installed(name: str) -> bool:
    try:
        version(name.replace("_", "-"))
    except PackageNotFoundError:
        return False
    return True


def _section(
    name: str, left: float, arguments: argparse.Namespace, scratch: Path, environment: dict[str, str]
) -> list[Measurement]:
    """Measure one section in a process of its own; its rows, and one that says why where there may be more."""
    if left < LEAST_SECONDS:
        return [measurement(f"{name}: whole", 0, f"not run: the budget of {arguments.budget:.0f} s was spent")]
    limit, started = min(SECTIONS[name].limit, left), time.monotonic()
    rows = scratch / f"{name}.json"
    command = [sys.executable, __file__, "--section", name, "--rows", rows, "--device", arguments.device]
    command += ["--scratch", scratch, *(["--tiny"] if arguments.tiny else [])]
    print(f"--- {name}, at most {limit:.0f} s", flush=True)
    process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)
    why = None
    try:
        if code := process.wait(limit):
            why = f"{BROKEN}ended with {code}"
    except subprocess.TimeoutExpired:
        why = f"{BROKEN}took more than {limit:.0f} s"
    finally:
        _end(process)
    found = [Measurement(**row) for row in read_json(rows)] if rows.is_file() else []
    found.append(measurement(f"{name}: seconds", time.monotonic() - started, "s"))
    if why is not None:
        found.append(measurement(f"{name}: whole", 0, why))
    print(table(found), flush=True)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a section's process and those it started, which are a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# --- a section's side ----------------------------------------------------------------------------


def _measure_section(arguments: argparse.Namespace) -> int:
    module = import_module(SECTIONS[arguments.section].module)
    measure: Callable[[Any, Report], None] = getattr(module, arguments.section)
    from bench.gpu.sizes import TINY, WHOLE

    size = TINY if arguments.tiny else WHOLE
    measure(size.on(arguments.device, arguments.scratch), Report(arguments.rows, arguments.tiny))
    return 0


if __name__ == "__main__":
    sys.exit(main())
