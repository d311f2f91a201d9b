"""Draw whether latents look where pairs of pictures differ."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.attribution_of_pairs import draw_attribution_of_pairs
from visae.running import running_job

with running_job(globals()) as job:
    draw_attribution_of_pairs(
        Path(job.input.table),
        Path(job.input.summary),
        Path(job.input.index),
        Path(job.input.card),
        Path(job.output.png).with_suffix(""),
        settings=job.settings(FigureSettings),
        layer=job.spec["layer"],
    )
