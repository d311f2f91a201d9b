"""Which program compressed a file, from how it begins, whatever its name."""

from __future__ import annotations

_COMMANDS = {
    b"\x1f\x8b": "gunzip",
    b"\x1f\x9d": "uncompress",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"LZIP": "lzip -d",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
}


def decompressor(start: bytes) -> str | None:
    """Command that unpacks a file which begins so; None where it is not compressed."""
    return next((command for magic, command in _COMMANDS.items() if start.startswith(magic)), None)
