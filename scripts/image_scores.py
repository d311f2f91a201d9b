"""Score latents against the classes of whole pictures."""

from pathlib import Path

from visae.config.settings import FeatureSettings
from visae.features.image_scores import write_image_scores
from visae.running import running_job

with running_job(globals()) as job:
    write_image_scores(
        Path(job.input.codes),
        Path(job.input.index),
        Path(job.output.scores),
        job.settings(FeatureSettings),
        seed=job.seed,
    )
