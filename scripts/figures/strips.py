"""Draw strips: a picture, exemplars of the class's latent, and answers before and after its edit."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.class_strips import draw_class_strips
from visae.running import running_job

with running_job(globals()) as job:
    draw_class_strips(
        Path(job.input.examples),
        Path(job.input.summary),
        Path(job.input.exemplars),
        Path(job.input.index),
        Path(job.input.card),
        Path(job.output.png).with_suffix(""),
        settings=job.settings(FigureSettings),
        names=Path(job.input.names) if job.input.names else None,
    )
