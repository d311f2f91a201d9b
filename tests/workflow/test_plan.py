"""What `plan` says of the small workflow, beside what lies on disk when it has run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Workflow

pytestmark = pytest.mark.slow


def size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def test_the_plan_is_what_was_made(finished: Workflow, fresh: Workflow) -> None:
    command = [sys.executable, "-m", "visae", "plan", "--configfile", "small.yaml", "--json"]
    # Once from the configuration alone, once beside the indexes.
    said = [
        subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True, check=True).stdout
        for workflow in (fresh, finished)
    ]
    assert said[0] == said[1]
    found = json.loads(said[0])
    results = finished.folder / "results"

    (stores,) = found["stores"]
    manifests = [
        json.loads((results / f"activations/scenes/tiny/layer{layer}/manifest.json").read_text())
        for layer in stores["layers"]
    ]
    assert stores["layers"] == ["10", "11"]
    assert stores["tokens"] == sum(manifest["rows"] for manifest in manifests)
    assert stores["bytes"] == pytest.approx(size(results, "activations/scenes/tiny/layer*/*.parquet"), rel=0.02)

    for sae in found["saes"]:
        folder = results / "saes/scenes/tiny/layer10" / sae["sae"]
        assert sae["tokens"] == json.loads((folder / "summary.json").read_text())["n_tokens_trained"]
        assert sae["bytes"] == pytest.approx(size(folder, "sae.safetensors"), rel=0.02)

    topk = next(codes for codes in found["codes"] if codes["sae"] == "topk")
    folder = results / "features/scenes/tiny/layer10/topk/scenes/codes"
    record = json.loads((folder / "manifest.json").read_text())
    assert topk["tokens"] == record["n_tokens"]
    # A bound: where fewer than k are positive there are fewer codes; files this small have a large footer.
    real = size(folder, "*.parquet")
    assert topk["bytes"] * record["rows"] / (topk["tokens"] * topk["active"]) == pytest.approx(real, rel=0.2)
