"""How large the parts of the GPU's benchmark are: the real sizes, and tiny ones that a CPU does in seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.planted import write_planted
from bench.trainer.contenders import SEED, Timing


@dataclass(frozen=True)
class Size:
    """Sizes of everything, and where it runs.

    Attributes
    ----------
    d_model, width, k, batch, large_batch
        Of the trainer.
    batches
        Batches of made activations in the file that trainers read again and again.
    held_out
        Rows that quality is measured on.
    quality_steps
        Steps that every contender trains before.
    widths
        Where memory is measured.
    architecture, image_size, image_batch, pictures
        The model of extraction, and how many pictures a dump reads.
    square
        Side of the matrices whose product tells how fast the device is.
    """

    d_model: int = 768
    width: int = 24_576
    k: int = 32
    batch: int = 4096
    large_batch: int = 16_384
    batches: int = 48
    held_out: int = 8192
    quality_steps: int = 400
    widths: tuple[int, ...] = (6144, 12_288, 24_576, 49_152)
    sample_tokens: int = 1 << 16
    architecture: str = "vit_base_patch16_224"
    image_size: int = 224
    layer: int = 10
    image_batch: int = 128
    pictures: int = 8192
    decoded: int = 1024
    repetitions: int = 5
    dumps: int = 2
    square: int = 8192
    timing: Timing = Timing(5, warm_up=10, seconds=0.6, fewest=4, most=200)
    threads: int = os.cpu_count() or 1
    device: str = "cuda"
    scratch: Path = Path()

    def on(self, device: str, scratch: Path) -> Size:
        """Return the same sizes on a device, with a folder for data."""
        return replace(self, device=device, scratch=scratch)

    def data(self) -> tuple[Path, Path]:
        """Make, or find, planted activations: those to train on, and those held out, of one dictionary.

        Their seed is that of `write_planted`, which no contender's weights share.
        """
        training, held_out = self.scratch / "planted.bin", self.scratch / "held-out.bin"
        if not held_out.is_file():
            count = self.batches * self.batch
            whole = write_planted(self.scratch / "whole.bin", count + self.held_out, self.d_model)
            rows = np.memmap(whole, np.float32, "r").reshape(-1, self.d_model)
            rows[:count].tofile(training)
            rows[count:].tofile(held_out)
            whole.unlink()
        return training, held_out

    def worker_settings(self, **more: Any) -> dict[str, Any]:
        """What every worker of a comparison is told."""
        shapes = {"d_model": self.d_model, "width": self.width, "batch_size": self.batch, "k": self.k}
        given = {"threads": self.threads, "seed": SEED, "sample_tokens": self.sample_tokens}
        return {"data": str(self.data()[0]), "device": self.device, "variant": "topk", **given, **shapes, **more}


WHOLE = Size()
TINY = Size(
    d_model=32,
    width=256,
    k=4,
    batch=128,
    large_batch=256,
    batches=16,
    held_out=256,
    quality_steps=20,
    widths=(128, 256),
    sample_tokens=1024,
    architecture="vit_tiny_patch16_224",
    image_size=32,
    layer=2,
    image_batch=4,
    pictures=12,
    decoded=8,
    repetitions=2,
    dumps=1,
    square=64,
    timing=Timing(2, warm_up=1, seconds=0.01, fewest=1, most=2),
    threads=1,
)
