"""Make a store of a user's own activations."""

from pathlib import Path

from visae.activations.given import adopt_activations
from visae.config.settings import ActivationsSettings
from visae.running import running_job

with running_job(globals()) as job:
    adopt_activations(job.settings(ActivationsSettings), Path(job.output.manifest))
