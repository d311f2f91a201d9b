"""The section on Slurm: what a training job asks for, and how it is watched over."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class SlurmSettings:
    """What each training job asks Slurm for, and what is done when it ends early. Nothing here changes a result."""

    partition: str | None = setting("`--partition`; the cluster's default without it.", None)
    account: str | None = setting("`--account`.", None)
    qos: str | None = setting("`--qos`.", None)
    constraint: str | None = setting("`--constraint`, such as `a100`.", None)
    gpus: int | None = setting(
        "GPUs of a training job. Without a number: none with `device: cpu`, else 1.", None, minimum=0
    )
    cpus: int = setting("Cores of a training job.", 4, minimum=1)
    memory_gb: float = setting(
        "Memory of a training job; where members of a sweep train together, each further one adds that of its weights, "
        "gradients and Adam's moments. Doubled on each of Snakemake's retries.",
        8.0,
        above=0,
    )
    minutes: int = setting(
        "Time limit of a training job in minutes, or as Slurm writes it: `12:00:00`, `1-12`; at its end training is "
        "requeued and goes on. Doubled on each of Snakemake's retries.",
        720,
        minimum=1,
        slurm_time=True,
    )
    notice: int = setting(
        "Seconds before the time limit at which training writes a checkpoint and has itself requeued; less than the "
        "limit.",
        120,
        minimum=5,
    )
    modules: list[str] = setting("Environment modules that a training job loads.", [])
    setup: list[str] = setting("Shell lines that a training job runs first.", [])
    patience: float = setting(
        "Minutes that a job may wait for a reason that time does not mend, such as a limit of the partition, before it "
        "is cancelled with a message. Waiting its turn a job may wait for ever.",
        10.0,
        minimum=0,
    )
    resubmissions: int = setting(
        "How many times a job that was preempted, killed or lost is submitted again, and one that reached its time "
        "limit requeued.",
        10,
        minimum=0,
    )
    detach: bool = setting(
        "What Ctrl-C or the death of Snakemake does to submitted training: false cancels it, true leaves it, and "
        "Snakemake started again joins it.",
        False,
    )
    gather: float = setting(
        "Seconds in which trainings that are ready together are gathered to one job array.", 10.0, minimum=0
    )
    check_every: float = setting("Seconds between two questions to Slurm about a job's state.", 15.0, above=0)
