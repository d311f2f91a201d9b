"""Draw which latents a task uses."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.atlas import draw_atlas
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.png).with_suffix("")
    draw_atlas(Path(job.input.effects), Path(job.input.summary), output, job.settings(FigureSettings))
