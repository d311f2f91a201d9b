"""What jobs do not wait for: modules they do not compute with, memory mapped anew, and torch being taken apart."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from visae.figures.of_tables import OfTables
from visae.running import prepare_environment

ROOT = Path(__file__).parents[2]

SCRIPT = """
'''Writes.'''
import atexit, sys
from types import SimpleNamespace
from pathlib import Path
from visae.running import running_job
folder = Path({folder!r})
snakemake = SimpleNamespace(
    params=SimpleNamespace(spec="{{}}"), log=[str(folder / "log")], input=[], output=[str(folder / "out")],
    wildcards=None, resources=None,
)
atexit.register(lambda: (folder / "atexit").write_text("run"))
class Slow:
    def __del__(self):
        (folder / "taken apart").write_text("")
kept = Slow()
with running_job(globals()) as job:
{body}
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def script(folder: Path, *body: str) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(folder=str(folder), body="\n".join(f"    {line}" for line in body)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("path", sorted((ROOT / "scripts/figures").glob("*.py")), ids=lambda path: path.stem)
def test_figures_import_nothing_that_only_computing_needs(path: Path) -> None:
    imports = [line for line in path.read_text().splitlines() if line.startswith("from visae")]
    if path.stem == "of_tables":
        imports += [f"import visae.figures.{figure}" for figure in get_args(OfTables)]
    heavy = ["torch", "timm", "pandas", "sklearn", "scipy.stats"]
    done = run("\n".join([*imports, "import sys", f"print([name for name in {heavy} if name in sys.modules])"]))
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize("module", ["visae.experiments.experiment", "visae.heads.probe", "visae.activations.extract"])
def test_jobs_that_compute_with_torch_import_other_libraries_when_they_use_them(module: str) -> None:
    heavy = ["pandas", "sklearn", "scipy.stats", "matplotlib"]
    done = run(f"import {module}, sys; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_jobs_import_from_the_checkout_and_what_a_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(ROOT / "src")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["elsewhere", source]))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    prepare_environment()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [source, "elsewhere"]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_stays_with_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    # 40 blocks of 48 MB, one after the other: without it each has its pages mapped anew, with it a few, as they move.
    code = (
        "import torch, resource\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "torch.ones(12 << 20); before = faults()\n"
        "for _ in range(40): torch.ones(12 << 20)\n"
        "print(faults() - before)"
    )
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    without = int(run(code).stdout)
    prepare_environment()
    assert int(run(code).stdout) < without / 2


def test_a_job_that_is_done_ends_at_once_and_writes_what_is_left(tmp_path: Path) -> None:
    done = script(tmp_path, 'print("printed")', '(folder / "out").write_text("made")')
    assert (done.returncode, done.stdout) == (0, "printed\n"), done.stderr
    assert (tmp_path / "atexit").read_text() == "run"
    assert not (tmp_path / "taken apart").exists()


def test_a_job_waits_for_its_threads(tmp_path: Path) -> None:
    body = (
        "import threading, time",
        'def late(): time.sleep(0.5); (folder / "late").write_text("made")',
        "threading.Thread(target=late).start()",
    )
    assert script(tmp_path, *body).returncode == 0
    assert (tmp_path / "late").read_text() == "made"


def test_a_job_that_fails_says_so_as_before(tmp_path: Path) -> None:
    done = script(tmp_path, 'raise ValueError("wrong")')
    assert done.returncode == 1
    assert "ValueError: wrong" in (tmp_path / "log").read_text()
