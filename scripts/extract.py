"""Write one shard's activations of all layers that are missing, in one forward pass."""

from pathlib import Path

from visae.activations.extract import extract_shard
from visae.config.settings import ModelSettings
from visae.running import running_job

with running_job(globals()) as job:
    extract_shard(
        job.settings(ModelSettings),
        shard=int(job.wildcards.shard),
        shards=job.spec["shards"],
        layers=job.spec["layers"],
        index_path=Path(job.input.index),
        card_path=Path(job.input.card),
        receipt=Path(job.output.receipt),
        device=job.device,
    )
