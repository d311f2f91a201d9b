"""Match the latents of SAEs that differ in their seed alone."""

from pathlib import Path

from visae.features.stability import compare_seeds
from visae.running import running_job

with running_job(globals()) as job:
    compare_seeds(
        [Path(config) for config in job.input.configs],
        Path(job.output.stability),
        seed=job.seed,
        same_settings=True,
    )
