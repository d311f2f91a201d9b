"""Give each patch the class that most of its pixels carry."""

from pathlib import Path

from visae.data.patch_labels import write_patch_labels
from visae.running import running_job

with running_job(globals()) as job:
    write_patch_labels(Path(job.input.index), Path(job.input.card), Path(job.output.labels))
