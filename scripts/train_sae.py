"""Train one sparse autoencoder; killed and started again it goes on from its last checkpoint."""

from pathlib import Path

from visae.config.settings import AnySae
from visae.files import text_sha256
from visae.running import running_job
from visae.sae.trainer import train

with running_job(globals()) as job:
    manifests = [Path(path) for path in job.input.manifests]
    # Whatever decides the result names the folder of the work in progress, so nothing else is ever resumed.
    made_from = [job.text, *(path.read_text() for path in manifests)]
    train(
        job.settings(AnySae),
        manifests=manifests,
        output=Path(job.output.summary).parent,
        work=Path(job.spec["runs"], text_sha256("\n".join(made_from))[:16]),
        device=job.device,
        seed=job.seed,
    )
