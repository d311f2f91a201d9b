"""Draw where latents look in the pictures in which they are strongest."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.attribution import OverlayFiles, draw_attribution
from visae.running import running_job

with running_job(globals()) as job:
    files = OverlayFiles(
        table=Path(job.input.table),
        stats=Path(job.input.statistics),
        index_path=Path(job.input.index),
        card_path=Path(job.input.card),
        scores=Path(job.input.scores) if job.input.scores else None,
        names=Path(job.input.names) if job.input.names else None,
    )
    draw_attribution(
        files, Path(job.output.png).with_suffix(""), settings=job.settings(FigureSettings), layer=job.spec["layer"]
    )
