"""Train the dictionaries that an SAE is compared with."""

from pathlib import Path
from tempfile import TemporaryDirectory

from visae.config.settings import GainSettings
from visae.gain.train import train_compared
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.manifest).parent
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".work-", dir=output) as work:
        train_compared(
            Path(job.input.config),
            [Path(path) for path in job.input.manifests],
            job.settings(GainSettings),
            output,
            Path(work),
            device=job.device,
            seed=job.seed,
        )
