"""Write what was read of data sets, and what models assume, as one table."""

from pathlib import Path

from visae.figures.what_was_read import write_what_was_read
from visae.running import running_job

with running_job(globals()) as job:
    write_what_was_read(
        dict(zip(job.spec["datasets"], map(Path, job.input.summaries), strict=True)),
        dict(zip(job.spec["models"], map(Path, job.input.cards), strict=True)),
        Path(job.output.html),
        Path(job.output.csv),
    )
