"""Write the metrics of visaebench and saev of a study's SAEs as one table."""

from pathlib import Path

from visae.figures.benchmark import write_benchmark_page
from visae.running import running_job

with running_job(globals()) as job:
    write_benchmark_page(
        dict(zip(job.spec["saes"], map(Path, job.input.tables), strict=True)),
        Path(job.output.html),
        Path(job.output.csv),
    )
