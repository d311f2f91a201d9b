"""Check the names that people gave to latents, and lay them beside the SAE."""

from pathlib import Path

from visae.features.names import write_names
from visae.running import running_job

with running_job(globals()) as job:
    write_names(Path(job.input.given), Path(job.input.sae), Path(job.output.names))
