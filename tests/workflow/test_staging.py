"""Stores that are copied to a node's own disk: no job runs again for it, and none makes anything else."""

from __future__ import annotations

import pytest
from conftest import SMALL, Workflow

pytestmark = pytest.mark.slow

SAE = "results/saes/scenes/tiny/layer10/topk/sae.safetensors"


def test_staging_reruns_nothing(finished: Workflow) -> None:
    finished.configure({**SMALL, "scratch": "$NODE_DISK"})
    jobs = finished.jobs("all")
    finished.configure(SMALL)
    assert jobs == {}


def test_a_job_looks_the_folder_up_and_makes_the_same(
    finished: Workflow, fresh: Workflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.configure({**SMALL, "scratch": "${NODE_DISK}"})
    said = fresh.run(SAE)
    assert said.returncode != 0
    assert "scratch: ${NODE_DISK}: not set on" in said.stdout + said.stderr
    monkeypatch.setenv("NODE_DISK", str(fresh.folder / "disk"))
    said = fresh.run(SAE)
    assert said.returncode == 0, said.stdout + said.stderr
    assert (fresh.folder / SAE).read_bytes() == (finished.folder / SAE).read_bytes()
    log = fresh.folder / "logs" / SAE.replace("sae.safetensors", "summary.json.log")
    assert f"is read from its copy {fresh.folder}/disk/visae-stores/" in log.read_text()
    assert not list(fresh.folder.glob("disk/visae-stores/*/*"))
