"""Print results of a benchmark as a Markdown table: python -m bench.markdown bench/results/store.json [PART …].

With --judged only the rows that have a target.

The tables in docs are its output; a test keeps them in step.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.harness import Measurement, short
from visae.files import read_json


def markdown(path: Path, parts: list[str], judged: bool = False) -> str:
    """Lines of a table: the rows whose name begins with one of `parts`, all rows where there are none.

    With `judged`, of these the rows that have a target. A line that says so where there are no results yet.
    """
    if not path.is_file():
        return f"Not measured yet: there is no `{path}`.\n"
    rows = [Measurement(**row) for row in read_json(path)]
    lines = ["| measured | value | ratio | target |", "| --- | --- | --- | --- |"]
    for row in rows:
        if (not parts or row.name.startswith(tuple(parts))) and not (judged and row.target is None):
            ratio = "" if row.ratio is None or row.unit == "x" else f"{row.ratio:.2f}"
            held = "" if row.target is None else f"{row.target}: {'holds' if row.holds else 'MISSED'}"
            # What did not run says why in place of a unit, and has no value.
            value = row.unit if row.unit.startswith("not run") else f"{short(row.value)} {row.unit}".strip()
            lines.append(f"| {row.name} | {value} | {ratio} | {held} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--judged"]
    print(markdown(Path(arguments[0]), arguments[1:], "--judged" in sys.argv), end="")
