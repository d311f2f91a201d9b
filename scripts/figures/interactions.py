"""Draw what latents do together."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.interactions import draw_interactions
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.png).with_suffix("")
    draw_interactions(Path(job.input.interactions), Path(job.input.summary), output, job.settings(FigureSettings))
