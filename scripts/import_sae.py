"""Take in a published SAE where others are trained."""

from pathlib import Path

from visae.config.published import PublishedSettings
from visae.running import running_job
from visae.sae.foreign.published_sae import import_published

with running_job(globals()) as job:
    import_published(
        job.settings(PublishedSettings),
        output=Path(job.output.summary).parent,
        manifests=[Path(path) for path in job.input.manifests],
        seed=job.seed,
    )
