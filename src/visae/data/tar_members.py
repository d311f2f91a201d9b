"""Read the headers of a tar's members one after the other; the tar is checked to be whole, and one."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from visae.data.noticed import Noticed
from visae.data.walks import is_service_folder
from visae.errors import DataError

_PIECE = 1 << 20


def members(tar: Path, file: BinaryIO, noticed: Noticed) -> Iterator[tarfile.TarInfo]:
    """Yield the files in a tar that have a suffix, names without a leading `./`; others are counted as left out.

    Raises
    ------
    DataError
        If the tar is cut off, damaged or several in one, or a member is a link or has holes.
    """
    try:
        archive = tarfile.TarFile(fileobj=file)
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # it keeps all that it has seen
            if member.isdir():
                continue
            member.name = posixpath.normpath(member.name)
            if what := _left_out(member.name):
                noticed.leave_out(what, f"{tar}!{member.name}")
                continue
            if not member.isreg() or member.issparse():
                raise DataError(
                    f"{tar}: {member.name} is a link or has holes; write the tar with real files (tar "
                    "--dereference --hard-dereference, without --sparse)"
                )
            yield member
        _check_end(tar, file, archive.offset)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{tar}: it is cut off or damaged ({error}); copy or make it again") from error


def key_and_kind(name: str) -> tuple[str, str]:
    """Split at the first dot of the last part: `a/0001.mask.png` is `a/0001` and `mask.png`."""
    folder, last = os.path.split(name)
    key, _, kind = last.partition(".")
    return os.path.join(folder, key), kind.lower()


def content(tar: Path, file: BinaryIO, member: tarfile.TarInfo) -> str:
    """Read a member as UTF-8; raises DataError where it is none."""
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{tar}: {member.name}: it is no UTF-8 text") from error


def _left_out(name: str) -> str:
    """What a member is that is never looked at; empty for others."""
    *folders, last = name.split("/")
    if last.startswith("._"):
        return "._ members of macOS"
    if any(is_service_folder(folder) for folder in folders if folder != ".."):
        return "members in service folders"
    if last.startswith("."):
        return "hidden members"
    return "" if "." in last else "members without a suffix"


def _check_end(tar: Path, file: BinaryIO, end: int) -> None:
    """Refuse a tar that goes on after its end, or has none: tarfile takes a damaged or missing header for the end."""
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")
    place = end + tarfile.BLOCKSIZE
    while piece := file.read(_PIECE):
        if piece.count(0) < len(piece):
            place += len(piece) - len(piece.lstrip(b"\0"))
            start = place // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            raise DataError(
                f"{tar}: it goes on after its end, from byte {start}, as tars do that are joined by cat: what follows "
                "would not be read; leave them as several files, join them by `tar --concatenate`, or unpack this with "
                "`tar --ignore-zeros` and write it anew"
            )
        place += len(piece)
