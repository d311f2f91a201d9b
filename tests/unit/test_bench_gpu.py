"""The benchmark of a GPU, whole and in small on a CPU: it must not fail where it is run once, for want of a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu import __main__ as gpu
from bench.gpu.sizes import TINY
from bench.harness import Measurement
from bench.markdown import markdown
from visae.files import read_json, write_json

ROOT = Path(__file__).parents[2]


def run(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--tiny", *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_all_sections_run_on_a_cpu_and_write_rows_that_docs_read(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    done = run("--budget", 900, "--output", output, "--scratch", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: Measurement(**row) for row in read_json(output)}
    assert {name.split(":")[0].split(",")[0] for name in rows} == set(gpu.SECTIONS)
    # Its own side of every section ran; peers are not there without their wheels, and say so.
    own = [row for name, row in rows.items() if "sparsify" not in name and "dictionary_learning" not in name]
    assert not [row for row in own if row.unit.startswith("not run")]
    assert all(row.holds for name, row in rows.items() if name.startswith("gradients") and row.target)
    assert rows["tests: failed"].value == 0
    assert rows["tests: skipped"].value > 0
    assert 0 < rows[f"quality, {TINY.quality_steps} steps: visae"].value < 1
    assert rows[f"trainer, batch {TINY.batch}: visae"].value > 0
    assert markdown(output, ["gradients"]).count("value <= 0.0001: holds") == 8


@pytest.mark.slow
def test_what_fails_or_hangs_takes_no_other_section_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import time\nfrom bench.harness import measurement\n"
        "def fails(size, report):\n    report.add(measurement('fails: first', 1, 'x'))\n    raise ValueError('no')\n"
        "def hangs(size, report):\n    report.add(measurement('hangs: first', 2, 'x'))\n    time.sleep(600)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\nimport bench.gpu.__main__ as gpu\n"
        "gpu.SECTIONS.clear()\n"
        "gpu.SECTIONS.update(fails=gpu.Section('broken', 60), hangs=gpu.Section('broken', 20), "
        "late=gpu.Section('broken', 60))\n"
        "gpu.__file__ = __file__\nsys.exit(gpu.main())\n"
    )
    output = tmp_path / "gpu.json"
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    command = [sys.executable, script, "--device", "cpu", "--tiny", "--budget", "60", "--scratch", tmp_path]
    done = subprocess.run([*command, "--output", output], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {row["name"]: row["unit"] for row in read_json(output)}
    assert found["fails: first"] == found["hangs: first"] == "x"
    assert found["fails: whole"] == "not run: it ended with 1"
    assert found["hangs: whole"].startswith("not run: it took more than")


def test_a_spent_budget_is_said_and_starts_nothing(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    done = run("--budget", 5, "--output", output, "--scratch", tmp_path)
    assert done.returncode == 0
    assert [row["unit"] for row in read_json(output)] == ["not run: the budget of 5 s was spent"] * len(gpu.SECTIONS)


def test_other_sections_of_an_earlier_run_stay(tmp_path: Path) -> None:
    earlier, output = tmp_path / "earlier.json", tmp_path / "gpu.json"
    rows = [Measurement("trainer, batch 8: visae", 1.0, "x"), Measurement("memory: seconds", 2.0, "s")]
    write_json(earlier, [vars(row) for row in rows])
    run("--budget", 5, "--output", output, "--scratch", tmp_path, "--only", "memory", "--onto", earlier)
    assert [(row["name"], row["value"]) for row in read_json(output)] == [
        ("trainer, batch 8: visae", 1.0),
        ("memory: whole", 0),
    ]


def test_ratios_of_tiny_sizes_are_not_judged(tmp_path: Path) -> None:
    for tiny, held in ((True, None), (False, False)):
        report = gpu.Report(tmp_path / "rows.json", tiny)
        report.add(Measurement("a: b", 1.0, "x", 0.5, "ratio >= 1", False))
        assert [row["holds"] for row in read_json(tmp_path / "rows.json")] == [held]


def test_a_table_of_what_was_never_measured_says_so(tmp_path: Path) -> None:
    assert "Not measured yet" in markdown(tmp_path / "none.json", [])
    write_json(tmp_path / "some.json", [vars(Measurement("a: b", 1.0, "x"))])
    assert "| a: b | 1.000 x |" in markdown(tmp_path / "some.json", [])
