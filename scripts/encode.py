"""Turn a store into sparse codes."""

from pathlib import Path

from visae.features.encoding import encode_store
from visae.running import running_job

with running_job(globals()) as job:
    encode_store(Path(job.input.manifest), Path(job.input.sae), Path(job.output.manifest).parent, job.device)
