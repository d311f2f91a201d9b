"""Draw what an edit changes on its class and elsewhere, beside the controls."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.segmentation_arms import draw_segmentation_arms
from visae.running import running_job

with running_job(globals()) as job:
    draw_segmentation_arms(
        Path(job.input.arms), Path(job.output.png).with_suffix(""), settings=job.settings(FigureSettings)
    )
