"""The script that times two checkouts' demos, on workflows that take no time."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts demos of its own

ROOT = Path(__file__).parents[2]

SNAKEFILE = """
rule all:
    output: "results/numbers.parquet"
    shell: "{python} -c \\"import polars, time; time.sleep({seconds}); polars.DataFrame({{{{'a': [{value}]}}}})"
           ".write_parquet('{{output}}')\\""
"""


def checkout(folder: Path, seconds: float, value: float) -> Path:
    (folder / "config").mkdir(parents=True)
    (folder / "config/config.yaml").write_text("{}")
    (folder / "Snakefile").write_text(SNAKEFILE.format(python=sys.executable, seconds=seconds, value=value))
    return folder


def timed(before: Path, after: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.demo_time", before, after, "--times", "1"]
    return subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)


def test_the_ratio_of_two_demos_is_that_of_their_times(tmp_path: Path) -> None:
    slow, fast = checkout(tmp_path / "slow", 15, 1.5), checkout(tmp_path / "fast", 0, 1.5)
    done = timed(slow, fast)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 tables: every number is the same" in done.stdout
    # A sleeping demo is slow on the clock alone.
    walls = [float(line.split(": ")[1].split(" s")[0]) for line in done.stdout.splitlines()[:2]]
    assert walls[0] > walls[1] + 5
    assert timed(fast, slow).returncode == 1


def test_a_number_that_differs_counts_as_failed(tmp_path: Path) -> None:
    before, after = checkout(tmp_path / "before", 15, 1.5), checkout(tmp_path / "after", 0, 1.25)
    done = timed(before, after)
    assert done.returncode == 1
    assert "1 of 1 differ" in done.stdout


def test_a_demo_that_fails_is_named(tmp_path: Path) -> None:
    whole, broken = checkout(tmp_path / "whole", 0, 1.5), checkout(tmp_path / "broken", 0, 1.5)
    (broken / "Snakefile").write_text("rule all: output: 'a'\n    shell: 'false'")
    done = timed(whole, broken)
    assert done.returncode == 1
    assert f"{broken}: the demo failed" in done.stderr
