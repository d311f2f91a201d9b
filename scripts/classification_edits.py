"""Edit latents and measure what a classification probe then says, beside controls."""

from pathlib import Path

from visae.config.settings import InterventionSettings
from visae.interventions.classification import classification_edits
from visae.running import running_job

with running_job(globals()) as job:
    classification_edits(
        job.settings(InterventionSettings),
        manifest=Path(job.input.manifest),
        layer=job.spec["layer"],
        sae_config=Path(job.input.sae),
        codes_manifest=Path(job.input.codes),
        card_path=Path(job.input.card),
        probe_metrics=Path(job.input.probe),
        index_path=Path(job.input.index),
        manual=job.spec["manual"],
        output=Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
