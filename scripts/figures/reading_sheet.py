"""Draw a few pictures of a data set as a model sees them, under their masks or labels."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.reading_sheet import draw_reading_sheet
from visae.running import running_job

with running_job(globals()) as job:
    draw_reading_sheet(
        Path(job.input.index),
        Path(job.input.card),
        Path(job.output.png).with_suffix(""),
        settings=job.settings(FigureSettings),
        seed=job.seed,
    )
