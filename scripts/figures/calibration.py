"""Draw whether a probe is right as often as it says."""

from pathlib import Path

from visae.config.settings import FigureSettings
from visae.figures.calibration import draw_calibration
from visae.running import running_job

with running_job(globals()) as job:
    output = Path(job.output.png).with_suffix("")
    draw_calibration(Path(job.input.reliability), Path(job.input.metrics), output, job.settings(FigureSettings))
