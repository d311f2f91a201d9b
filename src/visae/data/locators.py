"""Open a picture where it lies: a file of its own, or a range of bytes of a tar file.

A picture within a tar has a text instead of a path: `/data/train-000.tar!0001.jpg@1536:20480`, which is the tar, the
member's name, where its bytes start and how many they are. Members of an uncompressed tar lie there as they are, so
that nothing is unpacked and no list of members is read again.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path

_RANGE = re.compile(r"@(\d+):(\d+)\Z")
_IN_TAR = re.compile(r"\.tar(?=!)")


def locator(tar: str, member: str, offset: int, size: int) -> str:
    """Text that names a member of a tar."""
    return f"{tar}!{member}@{offset}:{size}"


def opened(path: str | Path) -> io.BufferedReader | io.BytesIO:
    """Open a file, or what a locator names, for reading bytes.

    Raises
    ------
    OSError
        If it does not exist, or its tar has become shorter.
    """
    text = os.fspath(path)
    try:
        return open(text, "rb")  # a file's own name comes first, whatever characters it has
    except (FileNotFoundError, NotADirectoryError):
        place = _place_in_tar(text)
        if place is None:
            raise
    tar, offset, size = place
    with open(tar, "rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f"{tar} ends before byte {offset + size}; it was changed after the data set was indexed")
    return io.BytesIO(content)


def _place_in_tar(text: str) -> tuple[str, int, int] | None:
    """Tar, first byte and number of bytes that a text names, if it is a locator of a tar that exists."""
    span = _RANGE.search(text)
    # Either of tar and member may have ".tar!" in its name; only one of the cuts leaves a file that exists.
    tars = [text[: cut.end()] for cut in _IN_TAR.finditer(text)] if span else []
    tar = next((tar for tar in tars if os.path.isfile(tar)), None)
    return (tar, int(span[1]), int(span[2])) if tar is not None and span is not None else None


def content_sha256(path: str | Path) -> str:
    """Hex sha256 of the bytes that `opened` gives."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_identity(path: str | Path) -> int:
    """64 bits that are the same for two names of one file, whether symbolic or hard links lead there.

    Raises
    ------
    OSError
        If it does not exist.
    """
    text = os.fspath(path)
    try:
        found, offset = os.stat(text), 0
    except (FileNotFoundError, NotADirectoryError):
        place = _place_in_tar(text)
        if place is None:
            raise
        found, offset = os.stat(place[0]), place[1]
    digest = hashlib.sha256(f"{found.st_dev}:{found.st_ino}:{offset}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
