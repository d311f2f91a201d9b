"""Find which latents a task uses, and prove them by edits."""

from pathlib import Path

from visae.config.settings import AtlasSettings
from visae.discovery.atlas import run_atlas
from visae.experiments.files import ExperimentFiles
from visae.running import running_job

with running_job(globals()) as job:
    run_atlas(
        job.wildcards.task,
        ExperimentFiles(**dict(job.input.items()), first=job.spec["first"], min_purity=job.spec["min_purity"]),
        job.settings(AtlasSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
