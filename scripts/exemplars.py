"""Find the pictures that show each latent's whole range."""

from pathlib import Path

from visae.config.settings import FeatureSettings
from visae.features.exemplars import write_exemplars
from visae.running import running_job

with running_job(globals()) as job:
    write_exemplars(
        Path(job.input.codes),
        Path(job.input.index),
        Path(job.output.exemplars),
        job.settings(FeatureSettings),
        seed=job.seed,
    )
