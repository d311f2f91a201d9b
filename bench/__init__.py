"""Benchmarks: a folder for each table of docs, run from the repository's root, such as `python -m bench.store`."""

import sys
from pathlib import Path

# Workers run as scripts, by Pythons without visae; benchmarks use some of their modules too.
sys.path.append(str(Path(__file__).resolve().parent / "peers"))
