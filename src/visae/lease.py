"""A lease: one process at a time has it, without file locks, which not every shared file system keeps."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BEAT = 5.0


@contextmanager
def leased(path: str | Path, silence: float = 60.0) -> Iterator[None]:
    """Hold a lease; waits for the process that has it.

    The lease is a file that is made exclusively and whose time its holder renews. A holder that died on this machine
    is noticed at once, one on another machine by its silence. Should a holder that only was silent go on,
    then two work at once: what they do must be harmless twice.

    Parameters
    ----------
    path
        The file; gone when nobody holds the lease.
    silence
        Seconds without a renewal after which a holder is held for dead.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = json.dumps({"host": _host(), "pid": os.getpid(), "token": secrets.token_hex(8)})
    others = _Watch(path, silence)
    while not _made(path, holder):
        if others.is_dead():
            _take_away(path, others.holder)
        else:
            time.sleep(0.5)
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, holder, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        if _text(path) == holder:
            path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether this machine has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class _Watch:
    """Looks at a lease that somebody else has; only this process's own clock is used."""

    def __init__(self, path: Path, silence: float) -> None:
        self._path, self._silence = path, silence
        self.holder, self._renewed, self._since = "", 0.0, time.monotonic()

    def is_dead(self) -> bool:
        try:
            holder, renewed = self._path.read_text(), self._path.stat().st_mtime
        except FileNotFoundError:
            return False
        if (holder, renewed) != (self.holder, self._renewed):
            self.holder, self._renewed, self._since = holder, renewed, time.monotonic()
        try:
            known = json.loads(holder)
        except ValueError:  # made, but not written yet
            known = {"host": "", "pid": 0}
        if known["host"] == _host() and not is_alive(known["pid"]):
            return True
        return time.monotonic() - self._since > self._silence


def _host() -> str:
    return socket.gethostname()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _made(path: Path, holder: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(holder)
    return True


def _take_away(path: Path, dead: str) -> None:
    """Remove a dead holder's lease; a lease that somebody else made in the meantime is put back."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _text(aside) != dead:
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _renew(path: Path, holder: str, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        if _text(path) != holder:
            return
        try:
            os.utime(path)
        except OSError:
            return
