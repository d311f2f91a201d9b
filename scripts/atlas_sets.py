"""Find sets of proven latents that move a class together."""

from pathlib import Path

from visae.config.settings import AtlasSettings
from visae.discovery.sets import run_sets
from visae.experiments.files import ExperimentFiles
from visae.running import running_job

with running_job(globals()) as job:
    files = {name: path for name, path in job.input.items() if name not in ("effects", "others")}
    run_sets(
        job.wildcards.task,
        ExperimentFiles(**files, first=job.spec["first"], min_purity=job.spec["min_purity"]),
        job.settings(AtlasSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        others=list(job.input.get("others", [])),
        device=job.device,
        seed=job.seed,
    )
