"""Have one SAE trained on Slurm and wait for it: submit_for_tests.py FOLDER JSON."""

import json
import logging
import os
import sys
from pathlib import Path

from visae.config.sections import from_plain
from visae.config.settings import AnySae, SlurmSettings
from visae.errors import VisaeError
from visae.launch.slurm import Request
from visae.launch.start import train_sae
from visae.launch.task import Task
from visae.work import Member

folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
logging.basicConfig(level=logging.INFO, format="%(message)s")
settings = from_plain(SlurmSettings, given["slurm"])
member = Member(from_plain(AnySae, given["sae"]), folder / "out/topk", folder / "runs/work")
task = Task([member], [Path(given["manifest"])], [], "cpu", 0, [])
options = {"partition": settings.partition} if settings.partition else {}
request = Request(settings, settings.minutes, 500, settings.gpus or 0, settings.cpus, options)
try:
    train_sae("topk", task, "slurm", request, folder / "runs", folder / "log", os.getppid())
except VisaeError as error:
    sys.exit(f"{type(error).__name__}: {error}")
