"""A small workflow of the real parts: made pictures, a ViT with random weights, every rule."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "scripts", "src", "config", "report", "envs", "profiles")

SMALL: dict[str, Any] = {
    "device": "cpu",
    "datasets": {"scenes": {"kind": "scenes", "train": 48, "val": 24, "test": 4, "image_size": 64, "shards": 2}},
    "models": {"tiny": {"architecture": "vit_tiny_patch16_224", "weights": "random", "image_size": 64, "workers": 0}},
    "saes": {
        "topk": {"variant": "topk", "k": 6, "auxk": 4, "expansion": 2, "steps": 30, "batch_size": 64},
        "relu": {"variant": "relu", "expansion": 2, "steps": 30, "batch_size": 64},
    },
    "features": {"permutations": 20},
    "heads": {"segmentation": {"epochs": 2, "learning_rates": [0.03]}, "probe": {"c_values": [0.1]}},
    "interventions": {
        "scales": [-2.0],
        "bootstrap": 20,
        "random_draws": 1,
        "doses": [-2.0, 0.0, 2.0],
        "untrained": 2,
        "sample": 2,
    },
    "studies": {
        "small": {
            "model": "tiny",
            "layer": 10,
            "head_layer": 11,
            "train_on": "scenes",
            "saes": ["topk", "relu"],
            "describe": ["scenes"],
            "classification": "scenes",
            "segmentation": "scenes",
        }
    },
}


@dataclass
class Workflow:
    """A copy of the checkout in which a test may change whatever it likes."""

    folder: Path

    def configure(self, values: dict[str, Any]) -> None:
        (self.folder / "small.yaml").write_text(yaml.safe_dump(values))

    def command(self, *arguments: str) -> list[str]:
        command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2"]
        return [*command, "--configfile", "small.yaml"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), cwd=self.folder, capture_output=True, text=True)

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Jobs that a dry run would run, by rule; targets that only name others are left out."""
        done = self.run(*arguments, "--dry-run")
        assert done.returncode == 0, done.stdout + done.stderr
        table = re.search(r"^job +count\n-+ +-+\n(.*?)^total ", done.stdout, re.MULTILINE | re.DOTALL)
        counts = dict(re.findall(r"^(\w+) +(\d+)$", table[1], re.MULTILINE)) if table else {}
        targets = {"all", "datasets", "models", "activations", "saes", "features", "heads", "interventions", "figures"}
        self.said = done.stdout
        return {rule: int(count) for rule, count in counts.items() if rule not in targets}

    def interrupted(self, until: str, *arguments: str) -> None:
        """Start a run and press Ctrl-C once its output says `until`."""
        # Shells let what they start in the background ignore Ctrl-C, and its children too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            self.command(*arguments), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if until in line:
                time.sleep(2)
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        assert process.wait() != 0


def checkout(folder: Path) -> Workflow:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder / part)
    workflow = Workflow(folder)
    workflow.configure(SMALL)
    return workflow


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Run the small workflow to its end, with a Ctrl-C on the way; tests must leave it as they found it."""
    workflow = checkout(tmp_path_factory.mktemp("finished"))
    workflow.interrupted("Training SAE", "all")
    done = workflow.run("all", "--rerun-incomplete")
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow


@pytest.fixture
def fresh(tmp_path: Path) -> Workflow:
    """Give a checkout in which nothing has run."""
    return checkout(tmp_path)
