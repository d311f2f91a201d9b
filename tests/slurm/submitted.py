"""What the tests in this folder submit: trainings of their own, and a study that trains a sweep on two stores."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent

# One core, so that sums of floats have one order; asked often, so that tests are short.
SLURM = {"memory_gb": 0.5, "cpus": 1, "minutes": 5, "notice": 10, "check_every": 0.5, "gather": 1}
TOPK = {
    **{"variant": "topk", "k": 4, "auxk": 8, "expansion": 16, "batch_size": 512},
    **{"steps": 1500, "checkpoint_every": 100, "log_every": 100},
}


def small_workflow() -> ModuleType:
    """The helpers of the workflow's tests."""
    spec = importlib.util.spec_from_file_location("small_workflow", HERE.parent / "workflow/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_workflow"] = module
    spec.loader.exec_module(module)
    return module


SMALL = small_workflow()


class Submitted:
    """A process that has one SAE trained on Slurm and waits for it."""

    def __init__(self, folder: Path, manifest: Path, steps: int = TOPK["steps"], **slurm: Any) -> None:
        self.folder, self.manifest, self.slurm = folder, manifest, {**SLURM, "gather": 0, **slurm}
        self.start(steps=steps)

    def start(self, **sae: Any) -> None:
        """Start it, or start it again."""
        given = {"sae": {**TOPK, **sae}, "slurm": self.slurm, "manifest": str(self.manifest)}
        command = [sys.executable, str(HERE / "submit_for_tests.py"), str(self.folder), json.dumps(given)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "said").open("a") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def checkpointed(self) -> str:
        """Wait for a checkpoint; returns the job's number."""
        wait_for(lambda: list(self.folder.glob("runs/*/checkpoints/step-*.json")), self)
        return json.loads(next(self.folder.glob("runs/*/job.json")).read_text())["job"]

    def weights(self) -> bytes:
        """Wait for the end; returns the weights' file."""
        assert self.process.wait(180) == 0, self.said
        return (self.folder / "out/topk/sae.safetensors").read_bytes()


def wait_for(ready: Callable[[], Any], what: Submitted | None = None, seconds: float = 90) -> Any:
    """Return what `ready` gives as soon as that is something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := ready():
            return found
        time.sleep(0.1)
    raise AssertionError(f"nothing came within {seconds} s\n{what.said if what else ''}")


def configured(vectors: Path, slurm: dict[str, Any] | None = None, **sae: Any) -> dict[str, Any]:
    """Configuration of the study: no pictures, no model."""
    study = {"layer": 0, "saes": ["sizes"], "describe": ["left"]}
    return {
        "device": "cpu",
        "cluster": "slurm",
        "slurm": {**SLURM, "gather": 5, **(slurm or {})},
        "datasets": {
            name: {"kind": "activations", "root": str(vectors), "dtype": "float16"} for name in ("left", "right")
        },
        "saes": {"topk": {**TOPK, **sae}},
        "sweeps": {"sizes": {"base": "topk", "grid": {"k": [2, 4]}}},
        "studies": {
            "left": {**study, "train_on": "left"},
            "right": {**study, "train_on": "right", "describe": ["right"]},
        },
    }
