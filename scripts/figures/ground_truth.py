"""Draw how well the best latents of a study's dictionaries tell the known causes of scenes."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.ground_truth import draw_ground_truth
from visae.running import running_job

with running_job(globals()) as job:
    tables = dict(zip(job.spec["saes"], map(Path, job.input.tables), strict=True))
    draw_ground_truth(tables, Path(job.output.png).with_suffix(""), job.settings(FigureSettings))
