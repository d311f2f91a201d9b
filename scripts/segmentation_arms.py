"""Edit latents and measure what a segmentation head then says, beside controls."""

from pathlib import Path

from visae.config.settings import InterventionSettings
from visae.interventions.segmentation import segmentation_arms
from visae.running import running_job

with running_job(globals()) as job:
    segmentation_arms(
        job.settings(InterventionSettings),
        manifest=Path(job.input.manifest),
        layer=job.spec["layer"],
        sae_config=Path(job.input.sae),
        codes_manifest=Path(job.input.codes),
        scores=Path(job.input.scores),
        card_path=Path(job.input.card),
        head_metrics=Path(job.input.head),
        index_path=Path(job.input.index),
        patch_labels=Path(job.input.labels),
        output=Path(job.output.summary).parent,
        min_purity=job.spec["min_purity"],
        manual=job.spec["manual"],
        device=job.device,
        seed=job.seed,
    )
