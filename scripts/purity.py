"""Compare the labels of each latent's strongest pictures."""

from pathlib import Path

from visae.config.settings import FeatureSettings
from visae.features.purity import write_purity
from visae.running import running_job

with running_job(globals()) as job:
    write_purity(
        Path(job.input.codes),
        Path(job.input.index),
        Path(job.output.purity),
        job.settings(FeatureSettings),
        Path(job.input.labels) if job.input.labels else None,
        seed=job.seed,
    )
