"""Score latents against the known causes of scenes: chosen on train, measured on val."""

from pathlib import Path

from visae.config.settings import FeatureSettings
from visae.features.ground_truth import write_cause_scores
from visae.running import running_job

with running_job(globals()) as job:
    write_cause_scores(
        Path(job.input.codes),
        Path(job.input.labels),
        Path(job.input.index),
        Path(job.output.causes),
        job.settings(FeatureSettings),
        seed=job.seed,
    )
