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
        span = _RANGE.search(text)
        # Either of tar and member may have ".tar!" in its name; only one of the cuts leaves a file that exists.
        tars = [text[: cut.end()] for cut in _IN_TAR.finditer(text)] if span else []
        tar = next((tar for tar in tars if os.path.isfile(tar)), None)
        if tar is None or span is None:
            raise
    offset, size = int(span[1]), int(span[2])
    with open(tar, "rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f"{tar} ends before byte {offset + size}; it was changed after the data set was indexed")
    return io.BytesIO(content)


def content_sha256(path: str | Path) -> str:
    """Hex sha256 of the bytes that `opened` gives."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
