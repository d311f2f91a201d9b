"""Draw what the members of a sweep reach."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.pareto import draw_pareto
from visae.running import running_job

with running_job(globals()) as job:
    draw_pareto(
        Path(job.input.selection),
        Path(job.output.png).with_suffix(""),
        job.settings(FigureSettings),
        # Of …/SAE/DATASET/scores.parquet
        scores={Path(path).parents[1].name: Path(path) for path in job.input.scores},
    )
