"""Draw the best latents of each class beside what chance reaches."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.class_latents import draw_class_latents
from visae.running import running_job

with running_job(globals()) as job:
    names = Path(job.input.names) if job.input.names else None
    draw_class_latents(
        Path(job.input.scores), Path(job.output.png).with_suffix(""), job.settings(FigureSettings), names
    )
