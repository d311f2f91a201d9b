"""What every benchmark shares: contenders in turns, medians, targets, the table, the results file, `--check`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from visae.files import read_json, write_json

FOLDER = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "visae" / "bench"

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Target:
    """A stated bound on a measurement's value or ratio.

    Attributes
    ----------
    of
        Which of the two is bound.
    sign
        `>=`, `<` or `<=`.
    bound
        The bound, in the unit of what is bound.
    """

    of: Literal["value", "ratio"]
    sign: Literal[">=", "<", "<="]
    bound: float

    def __str__(self) -> str:
        return f"{self.of} {self.sign} {self.bound:g}"

    def holds(self, measured: float) -> bool:
        """Whether a measured value or ratio keeps the bound."""
        return {">=": measured >= self.bound, "<": measured < self.bound, "<=": measured <= self.bound}[self.sign]


@dataclass(frozen=True)
class Measurement:
    """One row of the table and of the results file; `target` is text and `holds` None where nothing was promised."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    target: str | None = None
    holds: bool | None = None


def measurement(
    name: str, value: float, unit: str, ratio: float | None = None, target: Target | None = None
) -> Measurement:
    """Build a row, and judge it where it has a target."""
    if target is None:
        return Measurement(name, value, unit, ratio)
    judged = value if target.of == "value" else ratio
    if judged is None:
        raise ValueError(f"{name}: its target is {target}, and it has no {target.of}")
    return Measurement(name, value, unit, ratio, str(target), target.holds(judged))


def interleaved(contenders: dict[str, Callable[[], float]], repetitions: int) -> Samples:
    """Run every contender once a repetition, each time with another one first.

    Parameters
    ----------
    contenders
        Name to a function that runs once and returns what was measured.
    repetitions
        How often.

    Returns
    -------
    dict
        Name to the measured numbers, one a repetition.
    """
    names = list(contenders)
    samples: Samples = {name: [] for name in names}
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(contenders[name]())
    return samples


def median_ratio(samples: Samples, name: str, other: str) -> float:
    """Median, over repetitions, of one contender's number over another's of the same repetition.

    Contenders of one repetition ran within seconds of each other, so a machine that slows down for a minute
    leaves the quotient alone.
    """
    return median(a / b for a, b in zip(samples[name], samples[other], strict=True))


def fastest(samples: Samples, names: list[str]) -> str:
    """Of some contenders measured in something a second, the one with the largest median."""
    return max(names, key=lambda name: median(samples[name]))


def table(rows: list[Measurement]) -> str:
    """Lay rows out as text, one a line, below a heading."""
    cells = [("measurement", "value", "unit", "ratio", "target", "holds")]
    for row in rows:
        holds = {None: "", True: "yes", False: "NO"}[row.holds]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        cells.append((row.name, short(row.value), row.unit, ratio, row.target or "", holds))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    right = (1, 3)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def publish(rows: list[Measurement], output: Path | None, check: bool, partly: bool = False) -> int:
    """Print the table, write the results file where one is wanted, and return the exit code.

    Contenders take turns within a part, and no ratio spans two parts: with `partly`, rows of the parts that were not
    measured now (told by what stands before the first comma or colon of a name) stay in the file.

    Returns
    -------
    int
        1 if `check` is set and a target is missed, else 0.
    """
    print(table(rows))
    if output is not None:
        written = [asdict(row) for row in rows]
        if partly and output.is_file():
            parts = {_part(row) for row in written}
            kept = read_json(output)
            place = next((n for n, row in enumerate(kept) if _part(row) in parts), len(kept))
            others = [row for row in kept if _part(row) not in parts]
            written = others[:place] + written + others[place:]
        write_json(output, written)
        print(f"written: {output}")
    missed = [row for row in rows if row.holds is False]
    for row in missed:
        print(f"target missed: {row.name}: {row.target}")
    return int(check and bool(missed))


def run_parts(
    made: argparse.ArgumentParser, arguments: argparse.Namespace, parts: dict[str, Callable[[], list[Measurement]]]
) -> int:
    """Measure the parts that are asked for, and publish each when it is done: a stopped benchmark loses little.

    Parameters
    ----------
    parts
        Name to what measures it. Without `--only` all are measured, and no older row stays in the file.

    Returns
    -------
    int
        The exit code; see `publish`.
    """
    wanted = arguments.only or list(parts)
    if unknown := set(wanted) - set(parts):
        made.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    missed, partly = 0, bool(arguments.only)
    for part in wanted:
        started = time.monotonic()
        rows = parts[part]()
        print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        missed |= publish(rows, arguments.output, arguments.check, partly)
        partly = True
    return missed


def run_in_scratch(
    made: argparse.ArgumentParser,
    parts: Callable[[argparse.Namespace, Path], dict[str, Callable[[], list[Measurement]]]],
) -> int:
    """Measure parts that write their data into a folder that goes when they are done; see `run_parts`.

    Parameters
    ----------
    parts
        From the command line's arguments and the folder to name and what measures it.
    """
    arguments = made.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        return run_parts(made, arguments, parts(arguments, Path(scratch)))


def _part(row: dict[str, Any]) -> str:
    return re.split("[,:]", row["name"])[0]


def parser(description: str, output: str) -> argparse.ArgumentParser:
    """Command line that every benchmark has; `output` is the name of its results file."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="smaller and three repetitions: under two minutes")
    made.add_argument("--check", action="store_true", help="exit with 1 where a stated target is missed")
    made.add_argument("--repetitions", type=int, help="how often (default: 5; with --quick 3)")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch threads of every contender")
    made.add_argument(
        "--only", nargs="+", metavar="PART", help="only these parts; the others stay as they are in the results file"
    )
    made.add_argument("--output", type=Path, default=FOLDER / "results" / output, help="results file")
    made.add_argument("--scratch", type=Path, default=CACHE / "scratch", help="folder, on a real disk, for the data")
    return made


def repetitions(arguments: argparse.Namespace) -> int:
    """How often to repeat."""
    return arguments.repetitions or (3 if arguments.quick else 5)


def short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
