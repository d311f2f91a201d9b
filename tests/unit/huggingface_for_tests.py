"""Parquet files of pictures, as `datasets` and other programs write them."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from visae.config.settings import HuggingFaceSettings

PICTURE, CLASS = datasets.Image(), datasets.ClassLabel(names=["wren", "crow"])
PLAIN = {"image": PICTURE, "label": CLASS}
ALL = {"val_share": 0.0, "test_share": 0.0}


def values_of(number: int, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)


def encoded(number: int, kind: str = "png", mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values_of(number)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def cell(content: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": content, "path": path}


def pictures(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [cell(encoded(number), f"{number:04d}.png") for number in range(first, first + count)]


def shard(path: Path, columns: dict[str, list], features: dict[str, Any] | None = None, **options: Any) -> Path:
    """A file as the hub's own library writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = datasets.Features(features or {name: PLAIN[name] for name in columns})
    datasets.Dataset.from_dict(columns, features=known).to_parquet(path, **options)
    return path


def plain_shard(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A file as another program writes it, without features."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def hub(root: Path, **options: Any) -> HuggingFaceSettings:
    return HuggingFaceSettings(kind="huggingface", root=str(root), **options)
