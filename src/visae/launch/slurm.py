"""Slurm's commands: submit an array, ask for a job's state, cancel."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.config.sections import from_plain
from visae.config.settings import SlurmSettings
from visae.errors import LaunchError
from visae.launch.task import Task, Training

logger = logging.getLogger(__name__)

_LIVE = {
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
}
# Reasons to wait that time does not mend. All others (Priority, Resources, limits on what a user has running) may pass.
_HOPELESS = re.compile(
    r"BadConstraints|Partition(Node|Time)Limit|Partition(Config|Down|Inactive)|ReqNodeNotAvail|JobHeld|launch.failed|"
    r"Invalid(Account|QOS)|(Account|QOS)NotAllowed|(Assoc|QOS)\w*(PerJob|PerNode|TimeLimit|MinCPU|MinGRES)\w*|QOSMin\w*"
)


@dataclass(frozen=True)
class Request:
    """What a training job asks for, after Snakemake's `--set-resources`.

    Parameters
    ----------
    settings
        The section `slurm`: how jobs are watched, and what they run first.
    minutes, memory_mb, gpus, cpus
        Limits of a job.
    options
        `partition`, `account`, `qos`, `constraint` as far as they are given.
    attempt
        Which of Snakemake's retries this is, from 1.
    """

    settings: SlurmSettings
    minutes: int
    memory_mb: int
    gpus: int
    cpus: int
    options: dict[str, str]
    attempt: int = 1

    @classmethod
    def of(cls, resources: Any) -> Request:
        """Read a job's resources, under the names that Snakemake's Slurm executor uses too."""
        settings = from_plain(SlurmSettings, json.loads(resources.slurm))
        names = {"partition": "slurm_partition", "account": "slurm_account", "qos": "qos", "constraint": "constraint"}
        options = {option: str(resources.get(name)) for option, name in names.items() if resources.get(name)}
        limits = (resources.runtime, resources.mem_mb, resources.gpu, resources.cpus_per_task)
        return cls(settings, *limits, options, resources.attempt)


@dataclass(frozen=True)
class State:
    """A job's state in Slurm's words, and why it waits. `GONE`: Slurm does not know it any more."""

    name: str
    reason: str = ""

    @property
    def is_live(self) -> bool:
        """Whether it runs or will."""
        return self.name in _LIVE

    @property
    def is_hopeless(self) -> bool:
        """Whether it waits for something that time does not mend."""
        return self.name == "PENDING" and _HOPELESS.search(self.reason) is not None


def submit(tasks: list[Task], request: Request, folder: Path) -> list[str]:
    """Submit one job, or one array of several tasks; returns the tasks' job ids.

    Raises
    ------
    LaunchError
        If sbatch refuses: all of its own words, of which the first often hold the reason.
    """
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # read when submitit is imported
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    settings = request.settings
    if settings.notice >= 60 * request.minutes:
        raise LaunchError(
            f"slurm: notice: {settings.notice}: it is in seconds and has to be less than the time limit, which is "
            f"{request.minutes} minutes (slurm: minutes, or runtime of --set-resources, which is in minutes)"
        )
    executor = submitit.SlurmExecutor(folder, max_num_timeout=settings.resubmissions)
    resources: dict[str, Any] = {"gres": f"gpu:{request.gpus}"} if request.gpus else {}
    executor.update_parameters(
        job_name="visae-train",
        time=request.minutes,
        mem=f"{request.memory_mb}MB",
        cpus_per_task=request.cpus,
        **resources,
        **request.options,
        # Snakemake gives a waiting job no core, and says so in OMP_NUM_THREADS.
        setup=[
            f"export OMP_NUM_THREADS={request.cpus}",
            *(f"module load {shlex.quote(name)}" for name in settings.modules),
            *settings.setup,
            *_environment(),
        ],
        signal_delay_s=settings.notice,
        stderr_to_stdout=True,
        wckey=None,  # many clusters refuse submitit's default
        additional_parameters={"requeue": True},
    )
    try:
        with _outside_of_any_job(), executor.batch():
            jobs = [executor.submit(Training(task.to_text())) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as error:
        said = "\n".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
        raise LaunchError(
            f"sbatch refused the training job: {said}\nIt asked for {_described(request)}; change "
            "the section slurm of the configuration, or --set-resources train_sae:…"
        ) from error
    return [job.job_id for job in jobs]


def log_of(job: str, folder: Path) -> Path:
    """Where a job's log lies."""
    return folder / f"{job}_0_log.out"


def ended_by_itself(job: str, folder: Path) -> bool:
    """Whether the job came to an end of its own, good or bad, rather than being killed."""
    return (folder / f"{job}_0_result.pkl").exists()


def state_of(job: str) -> State | None:
    """State of a job; None where Slurm does not answer."""
    try:
        asked = _run("squeue", "--noheader", "--states=all", "--array", f"--jobs={job}", "--format=%T|%r")
        if asked.returncode == 0 and asked.stdout.strip():
            name, _, reason = asked.stdout.strip().splitlines()[0].partition("|")
            return State(name.strip(), reason.strip())
        if asked.returncode != 0 and "Invalid job id" not in asked.stderr:
            logger.warning("squeue: %s", asked.stderr.strip())
            return None
        # The controller has forgotten it; where there is an accounting database, that has not.
        kept = _run("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job}", "--format=State")
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("Slurm does not answer: %s", error)
        return None
    found = kept.stdout.split() if kept.returncode == 0 else []
    return State(found[0] if found else "GONE")


def cancel(job: str) -> None:
    """Cancel a job, or with an array's number all of its tasks."""
    try:
        _run("scancel", job)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("job %s could not be cancelled: %s", job, error)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        if command[0] != "sacct":
            raise
        return subprocess.CompletedProcess(command, 1, "", "")


def _environment() -> list[str]:
    """Shell lines for a job that must not depend on what sbatch hands on."""
    lines = ["export SUBMITIT_PREEMPT_SIGNAL=USR1"]
    if path := os.environ.get("PYTHONPATH"):
        lines.append(f"export PYTHONPATH={shlex.quote(path)}")
    return lines


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Hide that this is a job itself, if it is; only where Slurm's configuration lies must stay."""
    from submitit.helpers import clean_env

    configuration = os.environ.get("SLURM_CONF")
    with clean_env():
        if configuration is not None:
            os.environ["SLURM_CONF"] = configuration
        yield


def _described(request: Request) -> str:
    parts = [f"{request.gpus} GPUs", f"{request.cpus} cores", f"{request.memory_mb} MB", f"{request.minutes} minutes"]
    return ", ".join([*parts, *(f"{key} {value}" for key, value in request.options.items())])
