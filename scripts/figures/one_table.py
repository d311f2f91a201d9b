"""Draw a figure of one table, which the rule names."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.one_table import draw_table
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.png).with_suffix("")
    settings = job.settings(FigureSettings)
    draw_table(job.spec["figure"], Path(job.input.table), output, settings, task=job.spec.get("task"))
