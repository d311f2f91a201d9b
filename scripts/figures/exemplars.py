"""Draw latents by the pictures in which they fire most, or by a few from their whole range."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.exemplars import draw_exemplars
from visae.running import running_job

with running_job(globals()) as job:
    scores = Path(job.input.scores) if job.input.scores else None
    names = Path(job.input.names) if job.input.names else None
    draw_exemplars(
        Path(job.input.exemplars),
        Path(job.input.statistics),
        Path(job.input.index),
        Path(job.input.card),
        Path(job.output.png).with_suffix(""),
        settings=job.settings(FigureSettings),
        scores=scores,
        names=names,
        layer=job.spec["layer"],
        whole_range=job.spec["whole_range"],
    )
