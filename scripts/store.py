"""Check one layer's shards and publish them as a store."""

from pathlib import Path

from visae.activations.extract import StoreSource, publish_store
from visae.config.settings import ModelSettings
from visae.running import running_job

with running_job(globals()) as job:
    kept = job.spec["shards"], job.spec["tokens_per_image"], job.spec["token_seed"]
    source = StoreSource(Path(job.input.index), Path(job.input.card), *kept)
    publish_store(job.settings(ModelSettings), source, job.wildcards.layer, Path(job.output.manifest), job.device)
