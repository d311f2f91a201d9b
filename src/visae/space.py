"""Room on a disk: bytes, files (inodes) and quotas, each of which can be used up while the others are not."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries that are not written in Python keep the system's words, or its number, and lose the kind of error.
_WORDS = re.compile(rf"No space left on device|Disk quota exceeded|os error ({errno.ENOSPC}|{errno.EDQUOT})\b")
_PROBE = 1 << 20


@dataclass(frozen=True)
class Room:
    """What a file system has left for this user; a quota may be stricter.

    Attributes
    ----------
    n_bytes
        Free bytes.
    n_files
        Free inodes; None where the file system makes them as it needs them.
    """

    n_bytes: int
    n_files: int | None


def room_at(folder: str | Path) -> Room:
    """Room where a folder lies, or will lie: that of its nearest parent that exists."""
    folder = Path(folder).absolute()
    found = os.statvfs(next(path for path in (folder, *folder.parents) if path.exists()))
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def what_is_full(folder: str | Path) -> str | None:
    """Say what is used up where a folder lies, and how to see it; None where a megabyte can be written into it.

    It is written, and deleted again: no other way shows a quota.
    """
    room = room_at(folder)
    if room.n_files == 0:
        return (
            f"the disk is full: it takes no more files at {folder} (inodes are used up, `df -i {folder}`; "
            f"{room.n_bytes / 1e6:.1f} MB are free): delete many small files or have the quota of files raised"
        )
    if room.n_bytes < _PROBE:
        return f"the disk is full: {room.n_bytes / 1e6:.1f} MB are free at {folder} (`df -h {folder}`)"
    probe = Path(folder) / f".room.{secrets.token_hex(4)}.partial"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _FULL:
            return None
        return (
            f"the disk is full for you: a quota of bytes or of files (inodes) is used up at {folder} "
            f"({error.strerror}; `quota -s`, `lfs quota`, `df -i {folder}`, or your cluster's own command)"
        )
    finally:
        probe.unlink(missing_ok=True)
    return None


def explained_lack(error: BaseException, folder: str | Path) -> str | None:
    """Say what to do about an error that a full disk caused while results were written; None for any other error."""
    said = next((each for each in _chain(error) if _is_lack(each)), None)
    if said is None:
        return None
    place = getattr(said, "filename", None) or folder
    full = what_is_full(Path(place).parent) or what_is_full(folder) or "the disk is full, or was a moment ago"
    return f"{full}. It was: {said}. Make room; what is whole stays, and started again the job is done again"


def _is_lack(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return _WORDS.search(str(error)) is not None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
