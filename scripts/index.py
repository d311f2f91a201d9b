"""List a data set's pictures, one row a picture."""

from pathlib import Path

from visae.config.settings import AnyDataset
from visae.data.index import build_index
from visae.running import running_job

with running_job(globals()) as job:
    build_index(job.settings(AnyDataset), Path(job.output.index), job.seed)
