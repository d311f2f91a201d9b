"""What a file is that no decoder takes for a picture, from how it begins, whatever its name."""

from __future__ import annotations

from visae.data.compressions import decompressor

START = 512  # bytes that are looked at
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
_CONVERT = "which is not read; convert it to PNG or JPEG"


def content_kind(start: bytes) -> str | None:
    """Say what a file is that begins so, and what to do; None where that is not known."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "empty; copy it again"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; run git lfs pull where it lies"
    if text.startswith((b"/annex/objects/", b"../.git/annex/", b".git/annex/")):
        return "a pointer of git-annex; run git annex get where it lies"
    if b"<svg" in text:
        return f"SVG, {_CONVERT}"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        return "a page or message of a web server, and no picture; download it again"
    if start[4:8] == b"ftyp" and start[8:12] in _BRANDS:
        return f"{_BRANDS[start[8:12]]}, {_CONVERT}"
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return f"JPEG XL, {_CONVERT}"
    if start.startswith(b"%PDF"):
        return f"PDF, {_CONVERT}"
    if start.startswith(b"\x93NUMPY"):
        return "an array of NumPy; save it as PNG"
    if start.startswith(b"PK\x03\x04"):
        return "a zip file; unpack it"
    if not start.strip(b"\0"):
        return "zeros, as a broken copy leaves; copy it again"
    command = decompressor(start)
    return f"compressed; run `{command}` on it first" if command else None
