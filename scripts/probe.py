"""Train a linear classification probe."""

from pathlib import Path

from visae.config.settings import ProbeSettings
from visae.heads.files import HeadFiles
from visae.heads.probe import train_probe
from visae.running import running_job

with running_job(globals()) as job:
    train_probe(
        job.settings(ProbeSettings),
        HeadFiles(manifest=job.input.manifest, index_path=job.input.index, card_path=job.input.card),
        Path(job.output.metrics).parent,
        device=job.device,
        seed=job.seed,
    )
