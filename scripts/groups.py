"""Find latents that serve a shortcut, suppress them, and compare with retraining."""

from pathlib import Path

from visae.config.settings import GroupSettings
from visae.experiments.files import ExperimentFiles
from visae.groups.experiment import run_groups
from visae.running import running_job

with running_job(globals()) as job:
    run_groups(
        job.wildcards.task,
        ExperimentFiles(**dict(job.input.items()), first=job.spec["first"], min_purity=job.spec["min_purity"]),
        job.settings(GroupSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
