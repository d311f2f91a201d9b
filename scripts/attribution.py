"""Find where in their pictures latents look."""

from pathlib import Path

from visae.attribution.exemplars import AttributionFiles, attribute_exemplars
from visae.config.settings import AttributionSettings
from visae.running import running_job

with running_job(globals()) as job:
    files = {name: Path(path) for name, path in job.input.items()}
    attribute_exemplars(
        AttributionFiles(**files),
        job.settings(AttributionSettings),
        job.wildcards.layer,
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
