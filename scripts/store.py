"""Check one layer's shards and publish them as a store."""

from pathlib import Path

from visae.activations.extract import publish_store
from visae.config.settings import ModelSettings
from visae.running import running_job

with running_job(globals()) as job:
    publish_store(
        job.settings(ModelSettings),
        layer=job.wildcards.layer,
        shards=job.spec["shards"],
        index_path=Path(job.input.index),
        card_path=Path(job.input.card),
        manifest=Path(job.output.manifest),
        tokens_per_image=job.spec["tokens_per_image"],
        token_seed=job.spec["token_seed"],
        device=job.device,
    )
