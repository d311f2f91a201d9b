"""Draw what becomes of predictions as a latent is set to ever other values."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.dose_response import draw_dose_response
from visae.running import running_job

with running_job(globals()) as job:
    draw_dose_response(
        Path(job.input.doses), Path(job.output.png).with_suffix(""), settings=job.settings(FigureSettings)
    )
