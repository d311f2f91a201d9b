"""Tars of pictures."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from visae.config.settings import WebDatasetSettings


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(number).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def webdataset(root: Path, **options) -> WebDatasetSettings:
    return WebDatasetSettings(kind="webdataset", root=str(root), **options)


WHOLE = [("0.png", png(0)), ("1.png", png(1))]


def pairs(names: tuple[str, str], n: int = 6) -> list[tuple[str, bytes]]:
    """Members of n keys: a picture, and what says its class, 0 or 1."""
    contents = [(png(number), str(number % 2).encode()) for number in range(n)]
    return [
        (name.format(number), both[place]) for number, both in enumerate(contents) for place, name in enumerate(names)
    ]


ALL = {"val_share": 0.0, "test_share": 0.0}
