"""Score latents against classes: chosen on train, measured on val."""

from pathlib import Path

from visae.config.settings import FeatureSettings
from visae.features.scores import write_scores
from visae.running import running_job

with running_job(globals()) as job:
    write_scores(
        Path(job.input.codes),
        Path(job.input.labels),
        Path(job.input.index),
        Path(job.output.scores),
        job.settings(FeatureSettings),
        seed=job.seed,
    )
