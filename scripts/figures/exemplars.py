"""Draw latents by the pictures in which they fire most."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.exemplars import draw_exemplars
from visae.running import running_job

with running_job(globals()) as job:
    scores = Path(job.input.scores) if job.input.scores else None
    draw_exemplars(
        Path(job.input.exemplars),
        Path(job.input.statistics),
        Path(job.input.index),
        Path(job.input.card),
        Path(job.output.png).with_suffix(""),
        settings=job.settings(FigureSettings),
        scores=scores,
        layer=job.spec["layer"],
    )
