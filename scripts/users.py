"""Make vectors of users and a readout of their items, and list them."""

from pathlib import Path

from visae.activations.given import index_given
from visae.config.settings import UsersSettings
from visae.data.users import make_users
from visae.running import running_job

with running_job(globals()) as job:
    settings, index = job.settings(UsersSettings), Path(job.output.index)
    make_users(settings, index.parent, settings.seed + job.seed)
    index_given(settings.as_given(str(index.parent / "vectors")), index, settings)
