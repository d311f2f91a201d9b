"""Check one layer's shards and publish them as a store."""

from pathlib import Path

from visae.activations.extract import publish_store
from visae.config.settings import ModelSettings
from visae.running import running_job

with running_job(globals()) as job:
    publish_store(
        job.settings(ModelSettings),
        layer=int(job.wildcards.layer),
        shards=job.spec["shards"],
        index_path=Path(job.input.index),
        card_path=Path(job.input.card),
        manifest=Path(job.output.manifest),
        device=job.device,
    )
