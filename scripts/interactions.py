"""Edit latents of an atlas together, and find groups of latents that stand in for each other."""

from pathlib import Path

from visae.config.interactions import InteractionSettings
from visae.discovery.interactions import InteractionFiles, run_interactions
from visae.running import running_job

with running_job(globals()) as job:
    run_interactions(
        job.wildcards.task,
        InteractionFiles(**dict(job.input.items()), first=job.spec["first"], min_purity=job.spec["min_purity"]),
        job.settings(InteractionSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
