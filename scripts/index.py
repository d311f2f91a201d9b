"""List a data set's pictures, one row a picture."""

from pathlib import Path

from visae.config.settings import ActivationsSettings, AnyDataset
from visae.data.index import build_index
from visae.running import running_job

with running_job(globals()) as job:
    settings, index = job.settings(AnyDataset), Path(job.output.index)
    if isinstance(settings, ActivationsSettings):
        # Stores need torch, which pictures do not wait for.
        from visae.activations.given import index_given

        index_given(settings, index)
    else:
        build_index(settings, index, job.seed)
