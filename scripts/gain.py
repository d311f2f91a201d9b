"""Compare an SAE with dictionaries that learned less."""

from pathlib import Path

from visae.config.settings import GainSettings
from visae.experiments.files import ExperimentFiles
from visae.gain.compare import run_gain
from visae.running import running_job

with running_job(globals()) as job:
    files = dict(job.input.items())
    compared = Path(files.pop("compared"))
    run_gain(
        job.wildcards.task,
        ExperimentFiles(**files, first=job.spec["first"], min_purity=job.spec["min_purity"]),
        compared,
        job.settings(GainSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
