"""Measure the heads with a layer's patches replaced by the SAE's reconstruction, by their mean and by zero."""

from pathlib import Path

from visae.config.settings import FaithfulnessSettings
from visae.interventions.faithfulness import measure_faithfulness
from visae.running import running_job

with running_job(globals()) as job:
    # A study without one of the tasks has none of its files.
    tasks = {name: paths for name, paths in job.input.items() if name not in ("sae", "card") and paths}
    measure_faithfulness(
        job.settings(FaithfulnessSettings),
        layer=job.spec["layer"],
        sae_config=Path(job.input.sae),
        card_path=Path(job.input.card),
        output=Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
        **{name: Path(path) for name, path in tasks.items()},
    )
