"""Which job trains what, as files: shared by waiting processes, and found again by those that come later."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from visae.files import read_json, write_json
from visae.launch import slurm
from visae.launch.task import Task
from visae.lease import is_alive, leased
from visae.work import Member, missing_of


@dataclass(frozen=True)
class Record:
    """Says that a job trains a member; lies in the member's work folder.

    Parameters
    ----------
    job
        Slurm's number, `12` or `12_3`.
    folder
        Where submitit keeps the job's files.
    first
        Name of the member whose waiting process shows the log, so that it is shown once.
    """

    job: str
    folder: str
    first: str

    @classmethod
    def of(cls, member: Member) -> Record | None:
        """Read it; None where there is none."""
        try:
            return cls(**read_json(_place(member)))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, member: Member) -> None:
        """Put it into the member's work folder."""
        write_json(_place(member), asdict(self))

    def withdraw(self, member: Member) -> None:
        """Delete it, unless another has taken its place."""
        if Record.of(member) == self:
            _place(member).unlink(missing_ok=True)

    @property
    def log(self) -> Path:
        """The job's log."""
        return slurm.log_of(self.job, Path(self.folder))


def submitted(own: Member, task: Task, request: slurm.Request, runs: Path, ended: Record | None) -> Record:
    """Have `own` trained by a new job, in one array with all that other processes want trained at the same time.

    Of all processes one submits: the first to get the lease. The others then find their records, unlike `ended`, which
    is of a job that is no more.
    """
    with _announced(task, request, runs / "waiting"), leased(runs / "submitting.lease"):
        record = Record.of(own)
        if record is not None and record != ended:
            return record
        time.sleep(request.settings.gather)
        tasks = _missing([task, *_others(task, request, runs / "waiting")], own)
        folder = (runs / "slurm").absolute()
        with _no_interruption():
            for job, each in zip(slurm.submit(tasks, request, folder), tasks, strict=True):
                for member in each.members:
                    Record(job, str(folder), each.members[0].output.name).write(member)
    found = Record.of(own)
    assert found is not None
    return found


def _place(member: Member) -> Path:
    return member.work / "job.json"


@contextmanager
def _announced(task: Task, request: slurm.Request, folder: Path) -> Iterator[None]:
    """Tell whoever submits next that this is to be trained too."""
    path = folder / f"{task.name}-{secrets.token_hex(4)}.json"
    announcement = {"host": socket.gethostname(), "pid": os.getpid(), "request": _text(request), "task": task.to_text()}
    write_json(path, announcement)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _others(task: Task, request: slurm.Request, folder: Path) -> Iterator[Task]:
    """What other processes want trained with the same request; what dead ones left behind is deleted."""
    seen = {task.name}
    for path in sorted(folder.glob("*.json")):
        try:
            announced: dict[str, Any] = read_json(path)
        except FileNotFoundError:
            continue
        if announced["host"] == socket.gethostname() and not is_alive(announced["pid"]):
            path.unlink(missing_ok=True)
            continue
        other = Task.from_text(announced["task"])
        if announced["request"] == _text(request) and other.name not in seen:
            seen.add(other.name)
            yield other


def _missing(tasks: list[Task], own: Member) -> list[Task]:
    """The tasks without members that are made or that a live job trains; `own` stays, and leads."""
    live: dict[str, bool] = {}

    def is_on_its_way(member: Member) -> bool:
        record = Record.of(member)
        if record is None:
            return False
        if record.job not in live:
            state = slurm.state_of(record.job)
            live[record.job] = state is None or state.is_live
        return live[record.job]

    found = []
    for task in tasks:
        others = [
            member for member in missing_of(task.members) if member.work != own.work and not is_on_its_way(member)
        ]
        members = [own, *others] if task is tasks[0] else others
        if members:
            found.append(replace(task, members=members))
    return found


def _text(request: slurm.Request) -> str:
    return json.dumps(asdict(request), sort_keys=True)


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Have signals wait until it is on record what was submitted."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
