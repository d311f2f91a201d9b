"""Pictures: of plain colours, and of noise in a file."""

from pathlib import Path

import numpy as np
from PIL import Image


def colours() -> np.ndarray:
    """A picture whose four quarters differ, (30, 40, 3)."""
    picture = np.zeros((30, 40, 3), dtype=np.uint8)
    picture[:15, :20] = (250, 10, 10)
    picture[:15, 20:] = (10, 250, 10)
    picture[15:, :20] = (10, 10, 250)
    picture[15:, 20:] = (200, 200, 20)
    return picture


def picture(path: Path, number: int = 0, size: tuple[int, int] = (12, 8), **options) -> Path:
    """Save noise, other one for each number; size is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path, **options)
    return path
