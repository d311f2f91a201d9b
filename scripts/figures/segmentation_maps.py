"""Draw predicted segmentation before and after edits."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.segmentation_maps import draw_segmentation_maps
from visae.running import running_job

with running_job(globals()) as job:
    draw_segmentation_maps(
        Path(job.input.examples),
        Path(job.input.index),
        Path(job.input.card),
        Path(job.output.png).with_suffix(""),
        settings=job.settings(FigureSettings),
    )
