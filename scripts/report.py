"""Write Snakemake's own report of the figures."""

import json
import subprocess
import sys
from pathlib import Path

from visae.config.settings import Settings
from visae.errors import VisaeError
from visae.files import atomic_path
from visae.front_page import write_front_page
from visae.running import running_job

with running_job(globals()) as job:
    write_front_page(job.settings(Settings), Path(job.spec["front_page"]))
    with atomic_path(Path(job.output.html).with_suffix(".config.json")) as config:
        config.write_text(json.dumps(job.spec["settings"]))
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "figures",
            "--nolock",
            "--cores",
            "1",
            "--snakefile",
            job.spec["snakefile"],
        ]
        command += ["--configfile", str(config), "--report", job.output.html]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise VisaeError(f"snakemake --report failed: {done.stderr[-2000:]}")
