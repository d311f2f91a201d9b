"""Making a file cold: its pages leave the page cache."""

from __future__ import annotations

import os
from pathlib import Path


def drop_pages(folder: Path) -> None:
    """Write a folder's files to disk and have the kernel forget their pages, so that the next read is from disk.

    Pages that a process has mapped stay: whoever read them must have closed its files before.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
