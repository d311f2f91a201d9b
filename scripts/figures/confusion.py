"""Draw what a head takes each class for."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.confusion import draw_confusion
from visae.running import running_job

with running_job(globals()) as job:
    draw_confusion(Path(job.input.confusion), Path(job.output.png).with_suffix(""), job.settings(FigureSettings))
