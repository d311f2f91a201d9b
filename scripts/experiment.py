"""Edit latents and measure what the readout of a task then says, beside controls."""

from pathlib import Path

from visae.config.settings import InterventionSettings
from visae.experiments.experiment import run_experiment
from visae.experiments.files import ExperimentFiles
from visae.running import running_job

with running_job(globals()) as job:
    run_experiment(
        job.wildcards.task,
        ExperimentFiles(**dict(job.input.items()), first=job.spec["first"], min_purity=job.spec["min_purity"]),
        job.settings(InterventionSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        manual=job.spec["manual"],
        device=job.device,
        seed=job.seed,
    )
