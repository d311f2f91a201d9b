"""Launching without a cluster: where training goes, what Slurm's words mean. tests/slurm has the rest."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from visae.activations.given import write_store
from visae.config.settings import SlurmSettings, TopKSettings
from visae.errors import ConfigError, LaunchError
from visae.launch.slurm import Request, State, submit
from visae.launch.start import train_sae
from visae.launch.task import Task
from visae.launch.where import chosen_cluster
from visae.sae.checkpoints import Checkpoints
from visae.work import Member

TOPK = TopKSettings(variant="topk", k=3, expansion=2, steps=4, batch_size=64)


@pytest.mark.parametrize(
    ("programs", "where"), [({}, "local"), ({"sbatch": 0, "sinfo": 1}, "local"), ({"sbatch": 0, "sinfo": 0}, "slurm")]
)
def test_auto_takes_slurm_where_it_answers(
    programs: dict[str, int], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, status in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chosen_cluster("auto") == where
    assert chosen_cluster("debug") == "debug"


@pytest.mark.parametrize(
    ("reason", "hopeless"),
    [
        *[
            ("PartitionTimeLimit", True),
            ("PartitionConfig", True),
            ("BadConstraints", True),
            ("QOSMaxMemoryPerJob", True),
        ],
        *[("AssocMaxGRESPerJob", True), ("ReqNodeNotAvail, UnavailableNodes:a1", True), ("JobHeldAdmin", True)],
        *[("Priority", False), ("Resources", False), ("QOSMaxJobsPerUserLimit", False), ("AssocGrpGRES", False)],
        *[("BeginTime", False), ("Dependency", False), ("None", False)],
    ],
)
def test_only_what_time_does_not_mend_is_hopeless(reason: str, hopeless: bool) -> None:
    assert State("PENDING", reason).is_hopeless == hopeless
    assert not State("RUNNING", reason).is_hopeless


@pytest.mark.parametrize(("name", "live"), [("REQUEUED", True), ("RUNNING", True), ("TIMEOUT", False), ("GONE", False)])
def test_states_that_end_a_job(name: str, live: bool) -> None:
    assert State(name).is_live == live


def task_in(folder: Path, **changed: object) -> Task:
    values = np.random.default_rng(5).standard_normal((30, 5, 16)).astype(np.float32)
    manifest = write_store(folder / "store", values, [-1, *range(4)], {"train": 20, "val": 10})
    member = Member(dataclasses.replace(TOPK, **changed), folder / "out/topk", folder / "runs/work")  # type: ignore[arg-type]
    return Task([member], [manifest], [], "cpu", 0, [])


def start(task: Task, folder: Path, where: str) -> dict:
    request = Request(SlurmSettings(), 1, 100, 0, 1, {})
    return train_sae("topk", task, where, request, folder / "runs", folder / "log", 1)  # type: ignore[arg-type]


def test_debug_trains_as_a_node_would_and_comes_to_the_same(tmp_path: Path) -> None:
    there, here = task_in(tmp_path / "debug"), task_in(tmp_path / "local")
    assert Task.from_text(there.to_text()) == there
    start(there, tmp_path / "debug", "debug")
    start(here, tmp_path / "local", "local")
    weights = [(tmp_path / where / "out/topk/sae.safetensors").read_bytes() for where in ("debug", "local")]
    assert weights[0] == weights[1]


def test_an_error_in_debug_is_the_trainings_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdb.post_mortem", lambda: None)
    with pytest.raises(ConfigError, match="400 latents kept of only 32"):
        start(task_in(tmp_path, k=400), tmp_path, "debug")


def test_of_two_that_write_checkpoints_the_older_stops(tmp_path: Path) -> None:
    older, newer = Checkpoints(tmp_path, {}), Checkpoints(tmp_path, {})
    older.take_over()
    older.stop_if_taken_over()
    newer.take_over()
    newer.stop_if_taken_over()
    with pytest.raises(SystemExit, match="another process has taken this run over"):
        older.stop_if_taken_over()
    newer.clear()
    with pytest.raises(SystemExit, match="taken this run over"):
        older.stop_if_taken_over()


REFUSAL = """sbatch: error: lua: GPUs of this partition are asked for by type
sbatch: error: lua: write --gres=gpu:a100:1
sbatch: fatal: Invalid generic resource (gres) specification
"""


def test_all_that_sbatch_says_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    # submitit looks whether there is an srun, which this machine may lack.
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{REFUSAL}END\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    request = Request(SlurmSettings(), 720, 100, 1, 1, {})
    with pytest.raises(LaunchError) as caught:
        submit([task_in(tmp_path)], request, tmp_path / "jobs")
    assert all(line in str(caught.value) for line in REFUSAL.splitlines())
    assert "It asked for 1 GPUs" in str(caught.value)


def test_notice_must_leave_time_whatever_the_command_line_asks_for(tmp_path: Path) -> None:
    request = Request(SlurmSettings(notice=120), 2, 100, 0, 1, {})
    with pytest.raises(LaunchError, match=r"slurm: notice: 120: it is in seconds .* 2 minutes"):
        submit([task_in(tmp_path)], request, tmp_path / "jobs")
