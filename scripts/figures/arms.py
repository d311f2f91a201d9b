"""Draw what edits do to the answers to a task."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.arms import draw_arms
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.png).with_suffix("")
    draw_arms(Path(job.input.arms), output, job.spec["task"], settings=job.settings(FigureSettings))
