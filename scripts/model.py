"""Get a model's weights and write its card."""

from pathlib import Path

from visae.config.settings import ModelIdentity
from visae.running import running_job
from visae.vision.model import prepare_model

with running_job(globals()) as job:
    prepare_model(
        job.settings(ModelIdentity),
        Path(job.output.weights),
        Path(job.output.card),
        job.seed,
        read=str(job.resources.points).split(),
        edited=str(job.resources.edited).split(),
    )
