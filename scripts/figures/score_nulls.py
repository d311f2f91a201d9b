"""Draw scores of chosen latents against their nulls."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.score_nulls import draw_score_nulls
from visae.running import running_job

with running_job(globals()) as job:
    draw_score_nulls(Path(job.input.scores), Path(job.output.png).with_suffix(""), job.settings(FigureSettings))
