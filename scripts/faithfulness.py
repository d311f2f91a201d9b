"""Measure a study's tasks with a layer's patches replaced by the SAE's reconstruction, by their mean and by zero."""

from pathlib import Path

from visae.config.settings import FaithfulnessSettings
from visae.experiments.faithfulness import measure_faithfulness
from visae.running import running_job
from visae.tasks.files import TaskFiles

with running_job(globals()) as job:
    paths: dict[str, dict[str, str]] = {}
    for name, path in job.input.items():
        task, _, kind = name.rpartition("_")
        if task:
            paths.setdefault(task, {})[kind] = path
    measure_faithfulness(
        {task: TaskFiles(**found, first=job.spec["first"]) for task, found in paths.items()},
        job.input.sae,
        job.settings(FaithfulnessSettings),
        job.spec["layer"],
        Path(job.output.summary).parent,
        device=job.device,
        seed=job.seed,
    )
