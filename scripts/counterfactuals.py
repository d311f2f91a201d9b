"""Measure dictionaries on pairs of pictures that differ in one cause, and edit what is selective for it."""

from pathlib import Path

from visae.config.settings import CounterfactualSettings
from visae.counterfactual.experiment import CounterfactualFiles, run_counterfactuals
from visae.running import running_job

with running_job(globals()) as job:
    run_counterfactuals(
        CounterfactualFiles(
            manifest=job.input.manifest, index=job.input.index, card=job.input.card, saes=list(job.input.saes)
        ),
        job.settings(CounterfactualSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
