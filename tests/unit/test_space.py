"""A disk without bytes, without inodes, or beyond a quota: seen, named, and told apart from other errors."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from visae.files import write_json
from visae.space import explained_lack, room_at, what_is_full

ROOT = Path(__file__).parents[2]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small disk with options such as `size=2m`."""
    mounted: list[Path] = []
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = [*as_root, "mount", "-t", "tmpfs", "-o", f"{options},mode=1777", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no small disk can be mounted here, which takes root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run([*as_root, "umount", "--lazy", str(folder)])


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            return


def use_up_inodes(folder: Path) -> None:
    number = 0
    while True:
        try:
            (folder / f"small-{number}").touch()
        except OSError:
            return
        number += 1


def test_bytes_and_inodes_run_out_one_by_one(disk: Callable[[str], Path], tmp_path: Path) -> None:
    roomy, small = disk("size=8m"), disk("size=64m,nr_inodes=16")
    assert what_is_full(roomy) is None
    assert what_is_full(small) is None
    assert list(roomy.iterdir()) == []
    fill(roomy)
    assert "the disk is full: 0.0 MB are free" in (what_is_full(roomy) or "")
    use_up_inodes(small)
    assert room_at(small).n_files == 0
    assert room_at(small).n_bytes > 60e6
    assert "it takes no more files" in (what_is_full(small) or "")
    assert "df -i" in (what_is_full(small) or "")
    assert room_at(small / "not" / "there") == room_at(small)


WRITERS: dict[str, Callable[[Path], object]] = {
    "open": lambda path: path.write_bytes(bytes(1 << 24)),
    "json": lambda path: write_json(path, list(range(1 << 20))),
    "polars": lambda path: polars.DataFrame({"a": np.random.default_rng(0).random(1 << 20)}).write_parquet(path),
    "pyarrow": lambda path: pyarrow.parquet.write_table(
        pyarrow.table({"a": np.random.default_rng(0).random(1 << 20)}), path
    ),
    "safetensors": lambda path: save_file({"a": torch.zeros(1 << 22)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("used_up", [fill, use_up_inodes])
def test_every_way_of_writing_is_explained(
    writer: str, used_up: Callable[[Path], None], disk: Callable[[str], Path]
) -> None:
    folder = disk("size=2m,nr_inodes=16")
    used_up(folder)
    with pytest.raises(Exception) as caught:  # noqa: PT011 each library has its own
        WRITERS[writer](folder / "file")
    assert "the disk is full" in (explained_lack(caught.value, folder) or "")


def test_a_quota_is_told_by_the_systems_word_and_other_errors_are_left_alone(tmp_path: Path) -> None:
    beyond = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(tmp_path / "file"))
    assert "Make room" in (explained_lack(beyond, tmp_path) or "")
    outer = RuntimeError("the worker failed")
    outer.__cause__ = beyond
    assert "Make room" in (explained_lack(outer, tmp_path) or "")
    for other in (PermissionError(errno.EACCES, "No"), ValueError("device"), FileNotFoundError(2, "No such file")):
        assert explained_lack(other, tmp_path) is None


def test_a_stage_by_hand_says_that_the_disk_is_full_without_a_traceback(disk: Callable[[str], Path]) -> None:
    folder = disk("size=64m,nr_inodes=8")
    use_up_inodes(folder)
    command = [sys.executable, "-m", "visae", "index", "--settings", "kind=scenes", "train=1", "val=1", "test=1"]
    done = subprocess.run(
        [*command, "--index-path", str(folder / "index.parquet")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 1
    assert "takes no more files" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


SCRIPT = """
'''Writes.'''
from types import SimpleNamespace
from pathlib import Path
from visae.running import running_job
folder = Path({folder!r})
snakemake = SimpleNamespace(
    params=SimpleNamespace(spec="{{}}"), log=[{log!r}], input=[], output=[str(folder / "out" / "a.json")],
    wildcards=None, resources=None,
)
with running_job(globals()) as job:
    (folder / "file").write_bytes(b"1")
"""


@pytest.mark.parametrize("log_too", [True, False])
def test_a_job_says_that_the_disk_is_full_even_where_its_log_cannot_be_made(
    log_too: bool, disk: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = disk("size=64m,nr_inodes=8")
    use_up_inodes(folder)
    log = folder / "logs" / "a.log" if log_too else tmp_path / "logs" / "a.log"
    script = SCRIPT.format(folder=str(folder), log=str(log))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "takes no more files" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
