"""Draw class probabilities before and after edits, beside the controls."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.classification_edits import draw_classification_edits
from visae.running import running_job

with running_job(globals()) as job:
    draw_classification_edits(
        Path(job.input.edits), Path(job.output.png).with_suffix(""), settings=job.settings(FigureSettings)
    )
