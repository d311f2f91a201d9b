"""The doctor's look at disks and quotas."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doctor_for_tests import class_folders, look, said

from visae.doctor.disk import Quota, of_quota, quotas_of
from visae.doctor.report import Section


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small disk."""
    place, mounted = tmp_path / "disk", []
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]

    def mount(options: str) -> Path:
        place.mkdir()
        command = [*as_root, "mount", "-t", "tmpfs", "-o", f"{options},mode=1777", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no small disk can be mounted here, which takes root")
        mounted.append(place)
        return place

    yield mount
    for each in mounted:
        subprocess.run([*as_root, "umount", "--lazy", str(each)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=1m", "1.05 MB are free -> results: a larger disk"),
        (
            "size=1g,nr_inodes=100",
            "more files (inodes) can be made; a study makes some 5,004 -> delete many small files",
        ),
    ],
)
def test_a_disk_that_is_too_small_is_wrong(options: str, message: str, disk: Callable[[str], Path], here: Path) -> None:
    found = look(class_folders(here / "data"), results=str(disk(options) / "results"))
    assert message in said(found, "wrong")


def test_what_is_made_already_needs_no_room(disk: Callable[[str], Path], here: Path) -> None:
    place = disk("size=4m")
    dataset = class_folders(here / "data")
    assert "are needed" in said(look(dataset, results=str(place)), "wrong")
    (place / "activations").mkdir()
    with (place / "activations/shard-0.parquet").open("wb") as file:
        file.truncate(1 << 40)
    assert "are needed" in said(look(dataset, results=str(place)), "fine")


def test_results_that_cannot_be_written_are_wrong(here: Path) -> None:
    (here / "file").touch()
    found = look(class_folders(here / "data"), results=str(here / "file" / "results"))
    assert f"{here / 'file'} is a file" in said(found, "wrong")


def test_scratch_is_looked_at(here: Path, disk: Callable[[str], Path]) -> None:
    dataset = class_folders(here / "data")
    assert "there is no such folder here" in said(look(dataset, scratch="$NOT_SET_ANYWHERE"), "odd")
    assert f"scratch: {here}" in said(look(dataset, scratch=str(here)), "fine")
    assert "not copied" in said(look(dataset, scratch=str(disk("size=16k"))), "odd")


QUOTA = """Disk quotas for user ann (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1  900000* 800000 1000000  6days    9990   10000   10000   none
"""
LUSTRE = "/scratch     52*     50  100000       -  100000*      0  100000 6d23h\n"


def test_quotas_are_read_as_their_commands_print_them() -> None:
    assert list(quotas_of(QUOTA)) == [Quota("/dev/sda1", 900000, 1000000, 9990, 10000)]
    assert list(quotas_of(LUSTRE)) == [Quota("/scratch", 52, 100000, 100000, 100000)]


@pytest.mark.parametrize(
    ("quota", "level", "message"),
    [
        (Quota("/home", 10, 0, 10, 0), None, ""),
        (Quota("/home", 10, 10**9, 10, 10**6), None, ""),
        (Quota("/home", 10**6, 10**6, 10, 0), "wrong", "its bytes are used up"),
        (Quota("/home", 10, 1000, 10, 0), "odd", "less than may be needed"),
        (Quota("/home", 10, 0, 1000, 1000), "wrong", "its files (inodes) are used up"),
        (Quota("/home", 10, 0, 10, 1000), "odd", "990 more files"),
    ],
)
def test_a_quota_without_room_is_said(quota: Quota, level: str | None, message: str) -> None:
    section = Section("disk")
    of_quota(section, quota, 5000)
    assert [each.level for each in section.findings] == ([level] if level else [])
    assert message in "".join(each.text for each in section.findings)
