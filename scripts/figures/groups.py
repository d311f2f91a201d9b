"""Draw accuracies by group, and the latents that serve a shortcut."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.groups import draw_groups
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.png).with_suffix("")
    draw_groups(Path(job.input.accuracies), Path(job.input.latents), output, job.settings(FigureSettings))
