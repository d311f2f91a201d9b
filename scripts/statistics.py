"""Describe each latent in numbers."""

from pathlib import Path

from visae.config.settings import FeatureSettings
from visae.features.statistics import write_statistics
from visae.running import running_job

with running_job(globals()) as job:
    write_statistics(
        Path(job.input.codes),
        Path(job.input.sae),
        Path(job.input.index),
        Path(job.output.statistics),
        job.settings(FeatureSettings),
        patch_labels=Path(job.input.labels) if job.input.labels else None,
    )
