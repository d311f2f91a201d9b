"""What a file of another project is, told by its bytes: of tensors, and written by what, or an archive of others."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal

Kind = Literal["safetensors", "torch", "headed"]
_TOO_LARGE_FOR_SETTINGS = 1 << 24
_ZIP, PICKLE, GZIP = b"PK\x03\x04", b"\x80", b"\x1f\x8b"
# What torch.save began with before it wrote zip files: a number, itself pickled.
OLD_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


def kind_of(path: Path) -> Kind | None:
    """What a file is by its first bytes; None for what holds no tensors."""
    with path.open("rb") as file:
        start = file.read(9)
        # First of all: a length may begin with the byte that pickles begin with.
        length = int.from_bytes(start[:8], "little")
        if start[8:] == b"{" and length < path.stat().st_size:
            return "safetensors"
        if start.startswith((_ZIP, PICKLE, GZIP)):
            return "torch"
        if start.startswith(b"{"):
            file.seek(0)
            first = file.readline(_TOO_LARGE_FOR_SETTINGS)
            return "headed" if first.endswith(b"}\n") and file.read(1)[:1] not in (b"", b"{") else None
    return None


def is_archive(path: Path) -> bool:
    """Whether a file is a tar or zip file of others; torch.save writes zip files too, with one pickle in them."""
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    try:
        if not start.startswith(_ZIP):
            # Its end is a checksum of names, which no weights have by chance; a compressed one is told by its content.
            return not start.startswith((b"{", PICKLE)) and tarfile.is_tarfile(path)
        with zipfile.ZipFile(path) as archive:
            return not any(PurePosixPath(name).name in ("data.pkl", "constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError):
        return False  # damaged, which is said when it is read


def start_of(path: Path) -> bytes:
    """First bytes of a file, enough to tell what pickled it."""
    with path.open("rb") as file:
        return file.read(len(OLD_TORCH))
