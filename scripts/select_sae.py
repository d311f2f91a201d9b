"""Take one member of a sweep, by the rule of its section."""

from pathlib import Path

from visae.config.settings import SelectSettings
from visae.running import running_job
from visae.sae.choice import choose_member

with running_job(globals()) as job:
    choose_member(
        job.settings(SelectSettings),
        summaries=[Path(path) for path in job.input.summaries],
        output=Path(job.output.selection).parent,
    )
