"""Measure whether latents look where pairs of pictures differ."""

from pathlib import Path

from visae.attribution.of_pairs import PairFiles, attribute_pairs
from visae.config.settings import AttributionSettings
from visae.running import running_job

with running_job(globals()) as job:
    attribute_pairs(
        PairFiles(**{name: Path(path) for name, path in job.input.items()}),
        job.settings(AttributionSettings),
        job.wildcards.layer,
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
