"""Draw every latent by how often and how strongly it fires."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.feature_map import draw_feature_map
from visae.running import running_job

with running_job(globals()) as job:
    scores = Path(job.input.scores) if job.input.scores else None
    names = Path(job.input.names) if job.input.names else None
    draw_feature_map(
        Path(job.input.statistics), Path(job.output.png).with_suffix(""), job.settings(FigureSettings), scores, names
    )
