"""Open a picture where it lies: a file of its own, a range of bytes of a tar file, or a cell of a Parquet file.

A picture within a tar has a text instead of a path: `/data/train-000.tar!0001.jpg@1536:20480`, which is the tar, the
member's name, where its bytes start and how many they are. Members of an uncompressed tar lie there as they are, so
that nothing is unpacked and no list of members is read again. Of a cell the two numbers are column and row, both from
0: `/data/train-00000-of-00005.parquet!image/0001.jpg@0:17`. Columns are those that Parquet stores, of a struct one for
each of its fields.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

_RANGE = re.compile(r"@(\d+):(\d+)\Z")
_CONTAINER = re.compile(r"\.(tar|parquet)(?=!)")


class _Place(NamedTuple):
    """A container, and the two numbers that say where in it."""

    container: str
    first: int
    second: int

    def read(self) -> bytes:
        if self.container.endswith(".parquet"):
            from visae.data.parquet_cells import cell  # a data set of files does not wait for it

            content = cell(self.container, self.first, self.second)
            if content is None:
                raise OSError(f"row {self.second + 1} of {self.container} has no bytes of a picture there")
            return content
        with open(self.container, "rb") as file:
            file.seek(self.first)
            content = file.read(self.second)
        if len(content) < self.second:
            raise OSError(
                f"{self.container} ends before byte {self.first + self.second}; it was changed after the data set was "
                "indexed"
            )
        return content


def locator(container: str, name: str, first: int, second: int) -> str:
    """Text that names a member of a tar by its first byte and size, or a cell of a Parquet file by column and row."""
    return f"{container}!{name}@{first}:{second}"


def cut(text: str) -> tuple[str, str]:
    """Cut a locator into its container and the rest; the container is empty where it is the path of a file."""
    mark = _CONTAINER.search(text)
    return (text[: mark.end()], text[mark.end() :]) if mark else ("", text)


def opened(path: str | Path) -> io.BufferedReader | io.BytesIO:
    """Open a file, or what a locator names, for reading bytes.

    Raises
    ------
    OSError
        If it does not exist, its tar has become shorter, or its cell is empty or damaged.
    """
    text = os.fspath(path)
    try:
        return open(text, "rb")  # a file's own name comes first, whatever characters it has
    except (FileNotFoundError, NotADirectoryError):
        place = _place(text)
        if place is None:
            raise
    return io.BytesIO(place.read())


def _place(text: str) -> _Place | None:
    """What a text names, if it is a locator within a container that exists."""
    span = _RANGE.search(text)
    # Both container and name may have ".tar!" in them; only one of the cuts leaves a file that exists.
    containers = [text[: mark.end()] for mark in _CONTAINER.finditer(text)] if span else []
    container = next((each for each in containers if os.path.isfile(each)), None)
    return _Place(container, int(span[1]), int(span[2])) if container is not None and span is not None else None


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
        found, within = os.stat(text), "0"
    except (FileNotFoundError, NotADirectoryError):
        place = _place(text)
        if place is None:
            raise
        found, within = os.stat(place.container), f"{place.first}:{place.second}"
    digest = hashlib.sha256(f"{found.st_dev}:{found.st_ino}:{within}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
