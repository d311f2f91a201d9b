"""Write one shard's activations of all layers that are missing, in one forward pass."""

from dataclasses import replace
from pathlib import Path

from visae.activations.extract import extract_shard
from visae.config.settings import ModelSettings
from visae.running import running_job

with running_job(globals()) as job:
    workers = None if job.resources.workers == "None" else int(job.resources.workers)
    fed = {"batch_size": job.resources.batch_size, "workers": workers}
    extract_shard(
        replace(job.settings(ModelSettings), **fed),
        shard=int(job.wildcards.shard),
        shards=job.spec["shards"],
        layer=job.wildcards.layer,
        others=str(job.resources.layers).split(),
        index_path=Path(job.input.index),
        card_path=Path(job.input.card),
        receipt=Path(job.output.receipt),
        tokens_per_image=job.spec["tokens_per_image"],
        token_seed=job.spec["token_seed"],
        device=job.device,
        edited=str(job.resources.edited).split(),
    )
