"""Peers: an environment of their own each, and a process that repeats when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Self

from bench.harness import CACHE, FOLDER

# torch is the same for all; torchvision is what saev imports and is the one that belongs to this torch. overcomplete
# imports a function that later versions of matplotlib do not have. Of ViT-Prisma only the wheel itself is looked at.
PINS = {
    "saev": ["saev==0.1.0", "torch==2.13.0", "torchvision==0.28.0"],
    "saelens": ["sae-lens==6.54.12", "torch==2.13.0"],
    "sparsify": ["eai-sparsify==1.3.3", "torch==2.13.0"],
    "dictionary_learning": ["dictionary-learning==0.1.0", "torch==2.13.0"],
    "overcomplete": ["overcomplete==0.3.0", "torch==2.13.0", "matplotlib==3.8.4"],
    "prisma": ["--no-deps", "vit-prisma==0.1.4"],
}


# Set where nothing can be installed: all peers are then run by visae's Python, which has to find them.
ONE_PYTHON = "VISAE_BENCH_ONE_PYTHON"


def peer_python(name: str) -> Path:
    """Python of a peer's environment, made on first use and again when its pins change; visae's own for "visae"."""
    if name == "visae" or ONE_PYTHON in os.environ:
        return Path(sys.executable)
    folder = CACHE / name
    mark, python = folder / ".pins", folder / "bin" / "python"
    wanted = "\n".join(PINS[name])
    if not (mark.is_file() and mark.read_text() == wanted):
        print(f"installing {', '.join(PINS[name])} into {folder} (once, some minutes)", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS[name]], check=True)
        mark.write_text(wanted)
    return python


class Peer:
    """A worker script of bench/peers, run by the peer's Python; it does one repetition for each line it is sent.

    Parameters
    ----------
    name
        Which environment.
    script
        File in bench/peers.
    settings
        What the worker gets as JSON, its only argument.
    log
        File for what it prints besides its results.
    more_environment
        Further environment variables.

    Attributes
    ----------
    ready
        What it said when it had prepared its data.
    """

    def __init__(
        self,
        name: str,
        script: str,
        settings: dict[str, Any],
        log: Path,
        more_environment: dict[str, str] | None = None,
    ) -> None:
        self.name, self.log = name, log
        command = [peer_python(name), FOLDER / "peers" / script, json.dumps(settings)]
        threads = str(settings["threads"])
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        environment.update(more_environment or {})
        if name != "visae" and ONE_PYTHON not in os.environ:
            environment.pop("PYTHONPATH", None)
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        self.ready = self._answer()  # it has prepared its data

    def repeat(self, **options: Any) -> dict[str, Any]:
        """Have it do one repetition; returns what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(options) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"{self.name} stopped; the end of {self.log}:\n{self.log.read_text()[-2000:]}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
