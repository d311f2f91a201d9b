"""Room for what a study writes: bytes, inodes, quotas and rights, where results and scratch lie."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visae.config.settings import Settings
from visae.doctor.needs import Wanted
from visae.doctor.report import Section
from visae.space import room_at

# Stores, tables, figures, checkpoints, logs, benchmarks and Snakemake's own records of a study.
_FILES_OF_A_STUDY = 5_000
_FILES_OF_A_SHARD = 4
_MUCH = 0.9  # of what is free
_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")


def of_disk(settings: Settings, wanted: Wanted, where: str) -> Section:
    """Look at the places that a study writes to, without writing."""
    section = Section("disk")
    results = Path(settings.results).absolute()
    with section.looking(f"results: {results}"):
        _rights(section, results)
        _bytes(section, results, wanted)
        _inodes(section, results, settings)
        _quotas(section, results, wanted)
        if where == "slurm":
            _is_shared(section, results)
    if settings.scratch is not None:
        with section.looking(f"scratch: {settings.scratch}"):
            _scratch(section, settings.scratch, wanted, where)
    return section


def _rights(section: Section, results: Path) -> None:
    parent = _existing(results)
    if not parent.is_dir():
        section.wrong(f"results: {results}: {parent} is a file", "results: another folder")
    elif not os.access(parent, os.W_OK | os.X_OK):
        section.wrong(f"results: {results}: {parent} cannot be written to", "results: a folder of yours")


def _bytes(section: Section, results: Path, wanted: Wanted) -> None:
    free = room_at(results).n_bytes
    if wanted.why_not:
        section.odd(f"results: {results}: {_size(free)} are free; what is needed is not known: {wanted.why_not}")
        return
    needed = wanted.n_bytes + sum(need.checkpoint_bytes for need in wanted.saes)
    made = _bytes_in(results, ("activations", "saes", "features"))
    left = max(0, needed - made)
    text = f"results: {results}: {_size(needed)} are needed, {_size(made)} of them are made, {_size(free)} are free"
    if left > free:
        section.wrong(text, "results: a larger disk, or tokens_per_image, fewer layers or dtype: float16")
    elif left > _MUCH * free:
        section.odd(text, "checkpoints and figures come on top; make room first")
    else:
        section.fine(text)


def _inodes(section: Section, results: Path, settings: Settings) -> None:
    free = room_at(results).n_files
    if free is None:
        section.fine(f"results: {results}: files are made without a fixed number of inodes")
        return
    shards = sum(dataset.shards for dataset in settings.datasets.values())
    needed = _FILES_OF_A_STUDY + _FILES_OF_A_SHARD * shards * max(1, len(settings.studies))
    text = f"results: {results}: {free:,} more files (inodes) can be made; a study makes some {needed:,}"
    if free < needed:
        section.wrong(text, f"delete many small files (`df -i {_existing(results)}`) or results: another disk")
    else:
        section.fine(text)


@dataclass(frozen=True)
class Quota:
    """A line of `quota` or `lfs quota`: used and allowed kilobytes and files; 0 allows everything."""

    place: str
    kilobytes: int
    kilobytes_allowed: int
    files: int
    files_allowed: int


def quotas_of(said: str) -> Iterator[Quota]:
    """Read what `quota -w -p` and `lfs quota -q` print: place, then used, quota, limit and grace of bytes and files."""
    for line in said.splitlines():
        words = line.split()
        numbers = [word.rstrip("*") for word in words[1:]]
        if len(numbers) == 8 and all(numbers[place].isdecimal() for place in (0, 1, 2, 4, 5, 6)):
            used, soft, hard, files, soft_files, hard_files = (int(numbers[place]) for place in (0, 1, 2, 4, 5, 6))
            yield Quota(words[0], used, hard or soft, files, hard_files or soft_files)


def _quotas(section: Section, results: Path, wanted: Wanted) -> None:
    """Ask the commands for quotas where they are there; many clusters have one of their own."""
    commands = [["quota", "-w", "-p"]]
    commands += [["lfs", "quota", "-q", "-u", str(os.getuid()), str(_existing(results))]]
    for command in commands:
        if shutil.which(command[0]) is None:
            continue
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
        for quota in quotas_of(said):
            of_quota(section, quota, wanted.n_bytes / 1024)


def of_quota(section: Section, quota: Quota, needed_kilobytes: float) -> None:
    """Say whether a quota leaves room."""
    free = quota.kilobytes_allowed - quota.kilobytes
    free_files = quota.files_allowed - quota.files
    mend = "delete, have it raised, or set results: to another disk"
    if quota.kilobytes_allowed and free <= 0:
        section.wrong(f"quota of {quota.place}: its bytes are used up", mend)
    elif quota.kilobytes_allowed and free < needed_kilobytes:
        section.odd(f"quota of {quota.place}: {_size(1024 * free)} are left, less than may be needed", mend)
    if quota.files_allowed and free_files <= 0:
        section.wrong(f"quota of {quota.place}: its files (inodes) are used up", mend)
    elif quota.files_allowed and free_files < _FILES_OF_A_STUDY:
        section.odd(f"quota of {quota.place}: {free_files:,} more files (inodes) may be made", mend)


def _is_shared(section: Section, results: Path) -> None:
    if any(results.is_relative_to(place) for place in _LOCAL):
        section.odd(
            f"results: {results}: on clusters this is a disk of each machine's own, and jobs run on others",
            "results: a folder that all nodes see",
        )


def _scratch(section: Section, scratch: str, wanted: Wanted, where: str) -> None:
    text = os.path.expandvars(scratch)
    if where == "slurm":
        section.fine(f"scratch: {scratch}: looked up by each job where it runs; without room, stores are read in place")
        return
    if "$" in text or not Path(text).is_dir():
        section.odd(f"scratch: {scratch}: there is no such folder here, so stores are read where they lie")
        return
    free, largest = room_at(text).n_bytes, max((need.bytes for need in wanted.stores), default=0)
    if free < largest:
        section.odd(f"scratch: {text}: {_size(free)} are free and the largest store has {_size(largest)}: not copied")
    elif not os.access(text, os.W_OK):
        section.odd(f"scratch: {text} cannot be written to, so stores are read where they lie")
    else:
        section.fine(f"scratch: {text}: {_size(free)} are free")


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _bytes_in(results: Path, parts: tuple[str, ...]) -> int:
    total = 0
    for part in parts:
        for folder, _, files in os.walk(results / part):
            total += sum(os.lstat(os.path.join(folder, file)).st_size for file in files)
    return total


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"
