"""Draw what the heads keep when a layer's patches are replaced."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.faithfulness import draw_faithfulness
from visae.running import running_job

with running_job(globals()) as job:
    draw_faithfulness(Path(job.input.table), Path(job.output.png).with_suffix(""), job.settings(FigureSettings))
