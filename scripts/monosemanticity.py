"""Compare the pictures that activate each latent."""

from pathlib import Path

from visae.config.settings import FeatureSettings
from visae.features.monosemanticity import write_monosemanticity
from visae.running import running_job

with running_job(globals()) as job:
    write_monosemanticity(
        Path(job.input.codes),
        Path(job.input.index),
        Path(job.output.scores),
        job.settings(FeatureSettings),
        Path(job.input.judge),
        seed=job.seed,
        device=job.device,
    )
