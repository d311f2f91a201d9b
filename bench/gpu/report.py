"""Rows that a section of the benchmark of a GPU finds."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from bench.harness import Measurement
from visae.files import write_json


class Report:
    """Rows of a section, kept on disk as they come; ratios of tiny sizes are not judged."""

    def __init__(self, path: Path, tiny: bool) -> None:
        self.path, self.tiny, self.rows = path, tiny, list[Measurement]()

    def add(self, *rows: Measurement) -> None:
        """Keep rows."""
        for row in rows:
            judged = not (self.tiny and (row.target or "").startswith("ratio"))
            self.rows.append(row if judged else replace(row, target=None, holds=None))
        write_json(self.path, [asdict(row) for row in self.rows])
