"""Draw how the SAEs of a study learned."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.training import draw_training
from visae.running import running_job

with running_job(globals()) as job:
    runs = dict(zip(job.spec["saes"], map(Path, job.input.metrics), strict=True))
    draw_training(runs, Path(job.output.png).with_suffix(""), job.settings(FigureSettings))
