"""Draw a figure, which the rule names, of one table or of one for each SAE of a study."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.of_tables import draw_tables
from visae.running import running_job

with running_job(globals()) as job:
    tables = [Path(path) for path in job.input]
    source = dict(zip(job.spec["saes"], tables, strict=True)) if "saes" in job.spec else tables[0]
    output = Path(job.output.png).with_suffix("")
    draw_tables(job.spec["figure"], source, output, job.settings(FigureSettings), task=job.spec.get("task"))
