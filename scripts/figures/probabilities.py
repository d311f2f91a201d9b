"""Draw the probabilities of classes before and after edits."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.probabilities import draw_probabilities
from visae.running import running_job

with running_job(globals()) as job:
    draw_probabilities(
        Path(job.input.arms), Path(job.output.png).with_suffix(""), settings=job.settings(FigureSettings)
    )
