"""Train a linear classification probe."""

from pathlib import Path

from visae.config.settings import ProbeSettings
from visae.heads.probe import train_probe
from visae.running import running_job

with running_job(globals()) as job:
    train_probe(
        job.settings(ProbeSettings),
        manifest=Path(job.input.manifest),
        index_path=Path(job.input.index),
        card_path=Path(job.input.card),
        output=Path(job.output.metrics).parent,
        device=job.device,
        seed=job.seed,
    )
