"""Make a store of a user's own activations, or of made ones."""

from pathlib import Path

from visae.activations.given import adopt_activations
from visae.config.settings import ActivationsSettings, UsersSettings
from visae.running import running_job

with running_job(globals()) as job:
    settings = job.settings(ActivationsSettings | UsersSettings)
    if isinstance(settings, UsersSettings):
        settings = settings.as_given(str(Path(job.input.index).parent / "vectors"))
    adopt_activations(settings, Path(job.output.manifest))
