"""Waiting for a training job: its state and log are shown, it is submitted again when it was killed, or cancelled."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from visae.errors import LaunchError
from visae.launch import slurm
from visae.launch.records import Record, submitted
from visae.launch.task import Task
from visae.lease import is_alive
from visae.space import what_is_full
from visae.work import Member, is_made, publish

logger = logging.getLogger(__name__)

# A job is held for ended when it was found so this often in a row: requeueing passes through such states, and what a
# job wrote on another machine takes a while to be seen.
_TIMES = 3
_TAIL = 20


def train_on_slurm(
    own: Member, task: Task, request: slurm.Request, runs: Path, log: Path, snakemake: int
) -> dict[str, Any]:
    """Have an SAE trained on Slurm, and what shares its data with it; waits, then publishes its results.

    Parameters
    ----------
    own
        Whose results are wanted; a member of the task.
    task
        All that is trained on the same reading of the data.
    request
        What the job asks for.
    runs
        Folder of all work in progress, where jobs are recorded: another process that wants the same joins the job.
    log
        File to which the job's log is added.
    snakemake
        Process whose death cancels the job, unless it is detached.

    Returns
    -------
    dict
        The SAE's summary.

    Raises
    ------
    LaunchError
        If Slurm refuses the job or never starts it, or if it fails for good: the last lines of its log.
    """
    with _signals_raise():
        try:
            _have_trained(own, task, request, runs, log, snakemake)
        except (KeyboardInterrupt, SystemExit):
            _abandon(own, request.settings.detach)
            raise
    return publish(own)


def _have_trained(own: Member, task: Task, request: slurm.Request, runs: Path, log: Path, snakemake: int) -> None:
    """Submit or join jobs until the result lies in the work folder."""
    ended = Record.of(own)
    record = _joined(own, ended, request, log, snakemake) if ended is not None else None
    lost = 0
    while not is_made(own):
        if record is None:
            runs.mkdir(parents=True, exist_ok=True)
            if full := what_is_full(runs):
                raise LaunchError(f"no job is submitted: {full}. Make room, and start again")
            record = submitted(own, task, request, runs, ended)
            logger.info("%s is trained by Slurm job %s; its log: %s", own.output.name, record.job, record.log)
        watch = _Watch(own, record, request, log, snakemake)
        reason = watch.until_ended()
        if reason is None:
            record = Record.of(own) or record  # made, or another process has submitted again
            continue
        lost += 1
        if lost > request.settings.resubmissions:
            raise LaunchError(
                f"{reason}\nslurm: resubmissions: {lost - 1} were not enough; its last words:\n{watch.tail()}"
            )
        logger.warning("%s; submitting again, to go on from the last checkpoint", reason)
        if "OUT_OF_MEMORY" in reason:
            request = replace(request, memory_mb=2 * request.memory_mb)
        record, ended = None, record


def _abandon(own: Member, detach: bool) -> None:
    """Cancel the job with its whole array, for they all end with Snakemake; or leave it."""
    record = Record.of(own)
    if record is None:
        return
    if detach:
        logger.warning("job %s goes on without Snakemake; started again, it joins the job", record.job)
        return
    logger.warning("cancelling job %s; started again, training goes on from its last checkpoint", record.job)
    slurm.cancel(record.job.partition("_")[0])
    record.withdraw(own)


def _joined(own: Member, record: Record, request: slurm.Request, log: Path, snakemake: int) -> Record | None:
    """Return the record of an earlier process where its job lives; where it is done, take over its log."""
    if is_made(own):
        logger.info("job %s, which was submitted before, has made it", record.job)
        _Watch(own, record, request, log, snakemake).until_ended()
        return record
    state = slurm.state_of(record.job)
    if state is None or state.is_live:
        logger.info("joining job %s, which was submitted before", record.job)
        return record
    if request.attempt > 1 and slurm.ended_by_itself(record.job, Path(record.folder)):
        raise LaunchError(f"not tried again: training job {record.job} failed by itself; its log: {record.log}")
    return None


class _Watch:
    """One job under watch, for one member."""

    def __init__(self, own: Member, record: Record, request: slurm.Request, log: Path, snakemake: int) -> None:
        self._own, self._record, self._settings, self._snakemake = own, record, request.settings, snakemake
        self._log, self._copied = log, 0
        self._shown = record.first == own.output.name
        self._state, self._hopeless_since = slurm.State(""), 0.0

    def until_ended(self) -> str | None:
        """Wait; returns None when the result is made or another job makes it, else why the job must be run again."""
        times, asked = 0, -self._settings.check_every
        try:
            while not is_made(self._own):
                if Record.of(self._own) not in (None, self._record):
                    return None
                if not is_alive(self._snakemake):
                    raise SystemExit("Snakemake is gone")
                self._copy_log()
                if time.monotonic() - asked >= self._settings.check_every:
                    asked = time.monotonic()
                    times = times + 1 if self._has_ended() else 0
                    if times >= _TIMES:
                        return self._judged()
                time.sleep(min(1.0, self._settings.check_every))
        finally:
            self._copy_log(at_the_end=True)
        return None

    def tail(self) -> str:
        """Last lines of the job's log."""
        try:
            return "\n".join(self._record.log.read_text(errors="replace").splitlines()[-_TAIL:])
        except OSError:
            return f"{self._record.log} does not exist"

    def _has_ended(self) -> bool:
        """Ask Slurm, tell of what is new, and give a job up that cannot start."""
        state = slurm.state_of(self._record.job)
        if state is None:
            return False
        if state != self._state:
            because = f" ({state.reason})" if state.reason not in ("", "None") else ""
            logger.info("job %s: %s%s", self._record.job, state.name, because)
        if state.is_hopeless:
            self._hopeless_since = self._hopeless_since or time.monotonic()
            if time.monotonic() - self._hopeless_since >= 60 * self._settings.patience:
                slurm.cancel(self._record.job)
                self._record.withdraw(self._own)
                raise LaunchError(
                    f"job {self._record.job} cannot start: Slurm says {state.reason}, and has for slurm: patience: "
                    f"{self._settings.patience:g} minutes. Ask for less, or for another partition: section slurm of "
                    "the configuration, or --set-resources train_sae:…"
                )
        else:
            self._hopeless_since = 0.0
        self._state = state
        return not state.is_live

    def _judged(self) -> str:
        """Why the ended job must be run again; raises where that would not help."""
        job, state = self._record.job, self._state.name
        if full := what_is_full(self._record.folder):
            raise LaunchError(
                f"job {job} ended, and {full}. Make room; started again, training goes on from its last checkpoint"
            )
        if state != "COMPLETED" and slurm.ended_by_itself(job, Path(self._record.folder)):
            raise LaunchError(f"training job {job} failed; the last lines of {self._record.log}:\n{self.tail()}")
        if state.startswith("CANCELLED"):
            raise LaunchError(f"job {job} was cancelled; started again, training goes on from its last checkpoint")
        return f"job {job} ended without a result ({state})"

    def _copy_log(self, at_the_end: bool = False) -> None:
        """Add what is new in the job's log to this rule's, and show it, once for all members of the task."""
        if not (self._shown or at_the_end):
            return
        # A disk that is full, or a log that is not there yet, must not end the wait.
        with suppress(OSError):
            with self._record.log.open("rb") as job:
                job.seek(self._copied)
                new = job.read()
            text = new.decode(errors="replace").replace("\r", "\n")
            with self._log.open("a") as own:
                own.write(text)
            self._copied += len(new)
            if self._shown:
                sys.stderr.write(text)
                sys.stderr.flush()


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, with an exception."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
