"""Write one shard's activations of all layers that are missing, in one forward pass."""

from dataclasses import replace
from pathlib import Path

from visae.activations.extract import StoreSource, extract_shard
from visae.config.settings import ModelSettings
from visae.running import running_job

with running_job(globals()) as job:
    workers = None if job.resources.workers == "None" else int(job.resources.workers)
    fed = {"batch_size": job.resources.batch_size, "workers": workers}
    kept = job.spec["shards"], job.spec["tokens_per_image"], job.spec["token_seed"]
    extract_shard(
        replace(job.settings(ModelSettings), **fed),
        StoreSource(Path(job.input.index), Path(job.input.card), *kept),
        int(job.wildcards.shard),
        job.wildcards.layer,
        str(job.resources.layers).split(),
        Path(job.output.receipt),
        job.device,
        edited=str(job.resources.edited).split(),
    )
