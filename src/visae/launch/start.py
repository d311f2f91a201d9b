"""The one way in: train an SAE wherever the configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.launch.slurm import Request
from visae.launch.task import Task, Training
from visae.launch.waiting import train_on_slurm
from visae.launch.where import Where
from visae.work import publish


def train_sae(
    name: str, task: Task, where: Where, request: Request, runs: Path, log: Path, snakemake: int
) -> dict[str, Any]:
    """Publish an SAE's results, made here or on a cluster, with those that share its data.

    Parameters
    ----------
    name
        Which of the task's members is asked for.
    task
        All that is trained on the same reading of the data.
    where
        `slurm`: in a job; `local`: in this process; `debug`: in this process, in the form in which it would reach a
        job, and with Python's debugger after an error.
    request, runs, log, snakemake
        As of `train_on_slurm`; of no account elsewhere.

    Returns
    -------
    dict
        The SAE's summary.
    """
    members = {member.output.name: member for member in task.members}
    if where == "slurm":
        return train_on_slurm(members[name], task, request, runs, log, snakemake)
    if where == "debug":
        import submitit

        submitit.DebugExecutor(runs / "debug").submit(Training(task.to_text())).result()
        return publish(members[name])
    from visae.sae.sweep import train_one_of  # imports torch, which a waiting process does without

    more = (task.targets, task.loggers, task.scratch)
    return train_one_of(name, members, task.manifests, task.device, task.seed, *more)
