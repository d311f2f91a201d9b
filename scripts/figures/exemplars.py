"""Draw latents by the pictures in which they fire most, or by a few from their whole range."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.exemplars import SheetFiles, draw_exemplars
from visae.running import running_job

with running_job(globals()) as job:
    files = SheetFiles(
        exemplars=Path(job.input.exemplars),
        stats=Path(job.input.statistics),
        index_path=Path(job.input.index),
        card_path=Path(job.input.card),
        scores=Path(job.input.scores) if job.input.scores else None,
        names=Path(job.input.names) if job.input.names else None,
    )
    draw_exemplars(
        files,
        Path(job.output.png).with_suffix(""),
        settings=job.settings(FigureSettings),
        layer=job.spec["layer"],
        whole_range=job.spec["whole_range"],
    )
