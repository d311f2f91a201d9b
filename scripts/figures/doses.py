"""Draw dose and response."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.doses import draw_doses
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.png).with_suffix("")
    draw_doses(Path(job.input.doses), output, job.spec["task"], settings=job.settings(FigureSettings))
