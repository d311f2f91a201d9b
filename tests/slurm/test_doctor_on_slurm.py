"""What the doctor says of a request, beside what Slurm then does with it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from one_node import OneNode
from submitted import SMALL

from visae.config.parse import parse_config
from visae.doctor.examine import examined
from visae.doctor.needs import Wanted
from visae.doctor.report import Section
from visae.doctor.slurm import of_slurm

pytestmark = pytest.mark.slow
pytest_plugins = ("running_slurm",)
PROFILE = SMALL.ROOT / "profiles/slurm/profile.yaml"
# Two retries double it twice, and main's jobs end after a day.
REQUEST = {"minutes": 300, "memory_gb": 2, "cpus": 2, "gpus": 1}


def look(folder: Path, monkeypatch: pytest.MonkeyPatch, profile: str | None = None, **slurm: Any) -> Section:
    """Look at a request from a folder with a profile."""
    monkeypatch.chdir(folder)
    if profile is not None:
        (folder / "profiles/slurm").mkdir(parents=True)
        (folder / "profiles/slurm/profile.yaml").write_text(profile)
    more = {key: slurm.pop(key) for key in ("device",) if key in slurm}
    settings = parse_config({**copy.deepcopy(SMALL.SMALL), "device": "auto", **more, "slurm": {**REQUEST, **slurm}})
    return of_slurm(settings, Wanted(settings, {}))


def said(section: Section, level: str) -> str:
    return "\n".join(f"{each.text} -> {each.mend}" for each in section.findings if each.level == level)


def test_a_request_that_fits_is_fine(slurm: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queued = slurm.run("squeue", "-h")
    section = look(tmp_path, monkeypatch, PROFILE.read_text(), partition="main", constraint="fast")
    assert said(section, "wrong") + said(section, "odd") == ""
    fine = said(section, "fine")
    assert "Slurm 2" in fine
    assert "partition main has nodes for --time=300, --mem=2000MB, --cpus-per-task=2, --gres=gpu:1" in fine
    assert "sbatch would take the training job: Job " in fine
    assert slurm.run("squeue", "-h") == queued


@pytest.mark.parametrize(
    ("slurm_section", "level", "message"),
    [
        (
            {"partition": "gpu"},
            "wrong",
            "partition: gpu: there is none of that name -> slurm: partition: one of closed,",
        ),
        ({"partition": "gpu"}, "wrong", "invalid partition specified: gpu\nallocation failure: Invalid partition name"),
        ({"minutes": 6000}, "wrong", "(PartitionTimeLimit) -> slurm: minutes: 1440; training is requeued"),
        ({"minutes": "2-00:00:00"}, "wrong", "slurm: minutes: 2880 is more"),
        (
            {"minutes": 720},
            "odd",
            "the profile's 2 retries double 720 up to 2880 -> slurm: minutes: 360, or retries: 1",
        ),
        (
            {"cpus": 99},
            "wrong",
            "no node of partition main has slurm: cpus: 99 -> ask for less, or another: the most is 16",
        ),
        ({"memory_gb": 100}, "wrong", "has slurm: memory_gb: 100 -> ask for less, or another: the most is 64000 MB"),
        ({"gpus": 3}, "wrong", "has slurm: gpus: 3 -> ask for less, or another: the most is 2 a node"),
        (
            {"gpus": 3},
            "wrong",
            "sbatch would refuse the training job:\nallocation failure: Requested node configuration",
        ),
        ({"constraint": "a100"}, "wrong", "has slurm: constraint: a100 -> ask for less, or another: features are fast"),
        ({"partition": "short", "minutes": 20, "memory_gb": 4}, "wrong", "partition short allows 2000 MB a node"),
        ({"partition": "closed"}, "wrong", "partition closed is DOWN: its jobs wait"),
        ({"partition": "closed", "account": "chemistry"}, "wrong", "does not allow chemistry -> one of physics"),
        ({"device": "cuda", "gpus": 0}, "wrong", "device: cuda, and slurm: gpus: 0 -> slurm: gpus: 1"),
    ],
)
def test_what_slurm_would_refuse_or_let_wait_is_named(
    slurm_section: dict[str, Any],
    level: str,
    message: str,
    slurm: OneNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    section = look(tmp_path, monkeypatch, PROFILE.read_text(), **slurm_section)
    assert message in said(section, level), section.findings


def test_without_accounts_snakemake_has_to_ask_squeue(
    slurm: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = look(tmp_path, monkeypatch, "executor: slurm\n")
    assert "the cluster keeps no accounts" in said(section, "wrong")
    assert "-> give --slurm-status-command squeue" in said(section, "wrong")
    (tmp_path / "again").mkdir()
    section = look(tmp_path / "again", monkeypatch, PROFILE.read_text())
    assert "profiles/slurm/profile.yaml says so" in said(section, "fine")
    assert said(section, "wrong") == ""


def test_the_command_finds_slurm_where_the_workflow_would(slurm: OneNode, tmp_path: Path) -> None:
    workflow = SMALL.checkout(tmp_path)
    study = copy.deepcopy(SMALL.SMALL) | {"slurm": {"minutes": 6000}}
    workflow.configure(study)
    command = [sys.executable, "-m", "visae", "doctor", "--offline", "--configfile", "small.yaml"]
    done = subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "  wrong  partition main allows 1440 minutes (MaxTime 1-00:00:00)" in done.stdout
    (workflow.folder / "small.yaml").write_text(yaml.safe_dump(study | {"slurm": {"minutes": 300}}))
    done = subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_controller_that_does_not_answer_is_wrong(
    slurm: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    section = look(tmp_path, monkeypatch)
    assert "the controller does not answer" in said(section, "wrong")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SMALL.SMALL | {"cluster": "local"}))
    assert "Slurm" not in [part.title for part in examined(Path("study.yaml"), 10, offline=True)]
