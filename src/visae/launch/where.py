"""Where training runs."""

from __future__ import annotations

import shutil
import subprocess
from typing import Literal

Where = Literal["slurm", "local", "debug"]


def chosen_cluster(wanted: str) -> Where:
    """Resolve `auto`: Slurm where it can be submitted to and its controller answers, else local."""
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if shutil.which("sbatch") is None:
        return "local"
    try:
        answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "local"
    return "slurm" if answer.returncode == 0 else "local"
