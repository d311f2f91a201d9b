"""Training on a real Slurm: arrays, every way in which a job ends early, jobs that cannot start, Snakemake killed."""

from __future__ import annotations

import copy
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_node import OneNode
from submitted import SLURM, SMALL, Submitted, configured, wait_for

from visae.activations.given import write_store

pytestmark = pytest.mark.slow
pytest_plugins = ("running_slurm",)
LEFT, RIGHT = (f"results/saes/{side}/given/layer0" for side in ("left", "right"))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a store of random vectors."""
    folder = tmp_path_factory.mktemp("vectors") / "store"
    values = np.random.default_rng(5).standard_normal((80, 65, 32)).astype(np.float16)
    write_store(folder, values, [-1, *range(64)], {"train": 70, "val": 10}, dtype="float16")
    return folder


@pytest.fixture
def study(tmp_path: Path, vectors: Path, slurm: OneNode) -> Any:
    """A checkout whose configuration trains a sweep of two on two stores, on Slurm."""
    workflow = SMALL.checkout(tmp_path)
    workflow.configure(configured(vectors))
    return workflow


# --- jobs that end early -------------------------------------------------------------------------


def processes(folder: Path) -> list[int]:
    """Processes that train for a folder, on the node."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if "submitit.core._submit" in words and str(folder / "runs/slurm") in words:
            found.append(int(entry.name))
    return found


def interrupt(how: str, job: str, run: Submitted, slurm: OneNode) -> None:
    if how == "requeue":
        slurm.run("scontrol", "requeue", job)
    elif how == "kill":
        for process in processes(run.folder):
            os.kill(process, signal.SIGKILL)
    elif how != "limit":
        slurm.run("scancel", f"--signal={how}", job)


UNLIMITED = "unlimited"
WAYS = ["TERM", "USR1", "requeue", "kill", "limit"]


@pytest.fixture(scope="module")
def runs(slurm: OneNode, vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Submitted]:
    """One run for each way in which a job can end early, and one that nothing happens to, all at once."""
    folder = tmp_path_factory.mktemp("early")
    # Slurm looks at time limits every half minute, so that a training has to last longer to be given notice.
    of_limit = {"limit": {"minutes": 1, "notice": 50, "steps": 20_000}, UNLIMITED: {"steps": 20_000}}
    every = {
        how: Submitted(folder / (how or "alone"), vectors / "manifest.json", **of_limit.get(how, {}))
        for how in ["", UNLIMITED, *WAYS]
    }
    for how in WAYS:
        job = every[how].checkpointed()
        interrupt(how, job, every[how], slurm)
    return every


@pytest.fixture(scope="module")
def uninterrupted(runs: dict[str, Submitted]) -> bytes:
    return runs[""].weights()


@pytest.mark.parametrize("how", WAYS)
def test_a_job_that_ends_early_comes_to_the_same_weights(
    how: str, runs: dict[str, Submitted], slurm: OneNode, uninterrupted: bytes
) -> None:
    run = runs[how]
    while run.process.poll() is None:
        # Slurm lets a requeued job wait for two minutes.
        for job in slurm.run("squeue", "-h", "-t", "PD", "-o", "%A %r").splitlines():
            if "BeginTime" in job:
                slurm.run("scontrol", "update", f"JobId={job.split()[0]}", "StartTime=now")
        time.sleep(0.5)
    expected = runs[UNLIMITED].weights() if how == "limit" else uninterrupted
    assert run.weights() == expected, run.said
    logs = "".join(path.read_text() for path in (run.folder / "runs/slurm").glob("*log.out"))
    assert re.search(r"goes on from step [1-9]\d*", logs), logs
    # Killed it is submitted anew; given notice, or requeued by somebody, the job itself comes back.
    again = "submitting again" in run.said
    assert again == (how in ("TERM", "kill")), run.said
    assert (run.folder / "log").read_text().count("goes on from step") == logs.count("goes on from step")
    assert not list(run.folder.glob("runs/work*"))


def use_up(disk: Path, what: str) -> None:
    """Leave no byte, or no inode, free."""
    if what == "bytes":
        subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'filler'}"], stderr=subprocess.DEVNULL)
        return
    (disk / "filler").mkdir()
    with suppress(OSError):
        for number in itertools.count():
            (disk / "filler" / str(number)).touch()


@pytest.mark.parametrize(
    ("what", "size", "message"),
    [("bytes", "size=8m", "0.0 MB are free"), ("inodes", "size=64m,nr_inodes=200", "it takes no more files")],
)
def test_a_full_disk_loses_nothing_that_was_whole(
    what: str, size: str, message: str, slurm: OneNode, vectors: Path, tmp_path: Path, uninterrupted: bytes
) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "runs").symlink_to(disk, target_is_directory=True)
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", f"{size},mode=1777", "tmpfs", str(disk)]).returncode:
        pytest.skip("no small disk can be mounted here, which takes root")
    try:
        run = Submitted(folder, vectors / "manifest.json", resubmissions=1)
        run.checkpointed()
        use_up(disk, what)
        assert run.process.wait(120) == 1, run.said
        assert "the disk is full" in run.said
        assert message in run.said
        assert len(jobs(run.said)) == 1  # not submitted again
        run.start()
        assert run.process.wait(60) == 1
        assert "no job is submitted: the disk is full" in run.said
        subprocess.run(["rm", "-rf", str(disk / "filler")], check=True)
        run.start()
        assert run.weights() == uninterrupted
        assert "goes on from step" in run.said
    finally:
        subprocess.run([*as_root, "umount", "--lazy", str(disk)])


# --- jobs that cannot start, or fail ---------------------------------------------------------------


def test_a_request_that_no_node_can_meet_is_refused_with_slurms_words(
    slurm: OneNode, vectors: Path, tmp_path: Path
) -> None:
    run = Submitted(tmp_path, vectors / "manifest.json", gpus=9)
    assert run.process.wait(60) == 1
    assert "LaunchError: sbatch refused the training job: " in run.said
    assert "Requested node configuration is not available" in run.said
    assert "It asked for 9 GPUs, 1 cores" in run.said


def test_all_lines_of_a_refusal_are_quoted(slurm: OneNode, vectors: Path, tmp_path: Path) -> None:
    run = Submitted(tmp_path, vectors / "manifest.json", partition="gone")
    assert run.process.wait(60) == 1
    refusal = run.said[run.said.index("LaunchError: ") :]
    assert "invalid partition specified: gone" in refusal
    assert "Batch job submission failed: Invalid partition name specified" in refusal


@pytest.mark.parametrize(
    ("asked", "reason"), [({"minutes": 6000}, "PartitionTimeLimit"), ({"cpus": 99}, "PartitionConfig")]
)
def test_a_job_that_can_never_start_is_given_up_after_the_patience(
    asked: dict[str, int], reason: str, slurm: OneNode, vectors: Path, tmp_path: Path
) -> None:
    run = Submitted(tmp_path, vectors / "manifest.json", patience=0.03, **asked)
    assert run.process.wait(60) == 1
    assert re.search(rf"LaunchError: job \d+ cannot start: Slurm says {reason}", run.said), run.said
    assert jobs(run.said).isdisjoint(slurm.run("squeue", "-h", "-o", "%i").split())


# --- under Snakemake -------------------------------------------------------------------------------


def start(study: Any, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake in a session of its own; what it says goes to the file `said`."""
    with (study.folder / "said").open("a") as said:
        command = study.command("saes", "--rerun-incomplete", *arguments)
        return subprocess.Popen(command, cwd=study.folder, stdout=said, stderr=said, text=True, start_new_session=True)


def said(study: Any) -> str:
    return (study.folder / "said").read_text()


def jobs(said: str) -> set[str]:
    """Numbers of the jobs that were submitted."""
    return set(re.findall(r"is trained by Slurm job (\S+);", said))


def test_a_sweep_over_two_stores_is_one_array_with_a_log_of_each(study: Any, vectors: Path) -> None:
    study.configure(configured(vectors, {"setup": ["echo this line sets up"], "minutes": 3, "gpus": 1}, steps=200))
    assert study.run("activations").returncode == 0
    process = start(study, "--set-resources", "train_sae:runtime=7", "train_sae:slurm_partition=main")
    assert process.wait(120) == 0, said(study)
    (left, right) = sorted(jobs(said(study)))
    assert (left.split("_")[0], left.split("_")[1], right.split("_")[1]) == (right.split("_")[0], "0", "1")
    for side in (LEFT, RIGHT):
        logs = [path.read_text() for path in (study.folder / "logs" / side).glob("sizes-*/summary.json.log")]
        assert len(logs) == 2
        assert all("this line sets up" in log and "to be trained on one reading: sizes-" in log for log in logs)
    # What was asked for: the command line's, then the configuration's.
    (script,) = (study.folder / "results/.runs/slurm").glob("*_submission.sh")
    asked = set(script.read_text().splitlines())
    assert {f"#SBATCH --{option}" for option in ("time=7", "partition=main", "gres=gpu:1", "mem=501MB")} <= asked
    # Shown while waiting: states, and each job's log once.
    assert re.search(r"INFO job \d+_0: (PENDING|RUNNING)", said(study))
    assert said(study).count("to be trained on one reading") == 2
    assert not [path for path in (study.folder / "results/.runs").iterdir() if path.name not in ("slurm", "waiting")]


def test_a_failure_for_good_ends_with_the_jobs_own_words(study: Any, vectors: Path) -> None:
    config = configured(vectors, steps=200)
    config["sweeps"]["sizes"]["grid"]["k"] = [2, 4000]
    study.configure(config)
    process = start(study, "--keep-going")
    assert process.wait(120) == 1
    text = said(study)
    assert "LaunchError: training job" in text
    assert "latents kept of only 512" in text[text.index("LaunchError: training job") :]
    done = list((study.folder / LEFT).glob("sizes-*/summary.json"))
    assert len(done) == 1  # the other member is trained
    # Nothing was tried again: the failure has the job's number of its first and only attempt.
    assert len(jobs(said(study))) == 2


@pytest.mark.parametrize("how", ["ctrl-c", "killed", "killed, detached"])
def test_snakemake_stopped_midway_cancels_or_is_joined(how: str, study: Any, vectors: Path, slurm: OneNode) -> None:
    detached = how.endswith("detached")
    config = configured(vectors, {"detach": detached}, steps=6000 if detached else 1500)
    config["sweeps"]["sizes"]["grid"]["k"] = [4]
    config["studies"].pop("right")
    study.configure(config)
    process = start(study)
    wait_for(lambda: list(study.folder.glob("results/.runs/*/checkpoints/step-*.json")))
    (job,) = jobs(said(study))
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    process.wait(60)
    if detached:
        wait_for(lambda: "goes on without Snakemake" in said(study))
        assert slurm.run("squeue", "-h", "-t", "R", "-o", "%i").split() == [job]
    else:
        wait_for(lambda: "cancelling job" in said(study))
        wait_for(lambda: not slurm.run("squeue", "-h", "-t", "PD,R,CG"))
    study.run("saes", "--unlock")
    assert start(study).wait(120) == 0, said(study)
    if detached:
        assert f"joining job {job}" in said(study)
        assert jobs(said(study)) == {job}
    else:
        assert len(jobs(said(study))) == 2
        assert "goes on from step" in said(study)


def test_the_commands_of_the_page_on_clusters_take_a_study_to_its_figures(slurm: OneNode, tmp_path: Path) -> None:
    workflow = SMALL.checkout(tmp_path)
    config = copy.deepcopy(SMALL.SMALL)
    config["saes"].pop("relu")
    config["datasets"]["scenes"]["shards"] = 1
    config["studies"]["small"] |= {"saes": ["topk"], "classification": None}
    config |= {"slurm": {key: value for key, value in SLURM.items() if key != "gather"}}  # cluster: auto finds Slurm
    workflow.configure(config)
    page = (SMALL.ROOT / "docs/cluster.md").read_text()
    commands = [line for block in re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S) for line in block.splitlines()]
    assert any("--workflow-profile profiles/slurm" in command for command in commands)
    fast = ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "1", "--jobs", "3"]
    for command in commands:
        program, *arguments = shlex.split(command.replace("my-study.yaml", "small.yaml"))
        assert program == "snakemake", command
        arguments += fast
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments], cwd=workflow.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        print(done.stderr)
    assert list((workflow.folder / "results/figures").rglob("segmentation_arms.pdf"))
    assert "is trained by Slurm job" in done.stderr
    assert "has been submitted with SLURM jobid" in done.stderr
    assert workflow.jobs("all") == {}
