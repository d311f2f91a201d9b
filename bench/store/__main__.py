"""How fast activations are read, written and extracted, beside raw files, saev and SAELens.

reading     shuffled batches of 4096 x 384 float32 from a cold disk
formats     ways to keep the same column in Parquet
throughput  a dump of pictures on disk beside the bare forward passes
memory      peak memory of a dump of few and of many pictures
precision   what 16 bits lose
training    how long a trainer waits for the reader

Contenders take turns within one run, with as many torch threads each; values are medians over repetitions, ratios
medians of the quotients within a repetition. "Cold" means that a file's pages were dropped from the page cache by
posix_fadvise(DONTNEED) after an fsync. "At its fastest" means the faster of a contender's variants. Peers are
installed from PyPI into ~/.cache/visae/bench on first use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.harness import Measurement, parser, repetitions, run_in_scratch
from bench.store import extraction, formats, reading, training
from visae.vision.model import load_model


def main() -> int:
    made = parser(__doc__ or "", "store.json")
    made.add_argument("--rows", type=int, help="rows to read shuffled (default: 1.3 million; with --quick 200,000)")
    return run_in_scratch(made, _parts)


def _parts(arguments: argparse.Namespace, scratch: Path) -> dict[str, Callable[[], list[Measurement]]]:
    """Name to what measures it; the embedded model and its activations are made once, when first asked for."""
    quick, times, threads = arguments.quick, repetitions(arguments), arguments.threads
    torch.set_num_threads(threads)
    rows = arguments.rows or (200_000 if quick else 1_300_000)
    network = _Saliency(scratch / "network", 32 if quick else 64)
    return {
        "reading": lambda: reading.measure(
            scratch / "reading", rows, (4 if quick else 48) * reading.BATCH, threads, times
        ),
        "formats": lambda: formats.measure(
            scratch / "formats", _tiled(network.activations(), 32_768 if quick else 163_840), times
        ),
        "throughput": lambda: extraction.measure_throughput(
            scratch / "throughput", network.card(), 32 if quick else 192, times
        ),
        "memory": lambda: extraction.measure_memory(
            scratch / "memory", 200 if quick else 500, 1000 if quick else 5000, threads, times
        ),
        "precision": lambda: extraction.measure_precision(network.activations()),
        "training": lambda: training.measure(scratch / "training", network.activations(), 40 if quick else 120),
    }


class _Saliency:
    """The embedded saliency network and its activations on some made pictures."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._card: Path | None = None
        self._activations: np.ndarray | None = None

    def card(self) -> Path:
        """Return the path of the model's card."""
        if self._card is None:
            self._card = extraction.prepared(extraction.NETWORK, self.folder / "model")
        return self._card

    def activations(self) -> np.ndarray:
        """Float32 (count * n_tokens, d_model)."""
        if self._activations is None:
            model = load_model(self.card())
            index = extraction.made_pictures(self.folder / "pictures", self.count)
            self._activations = extraction.activations(model, extraction.decoded(index, model, self.count))
        return self._activations


def _tiled(values: np.ndarray, rows: int) -> np.ndarray:
    """Repeat rows until there are `rows`; a repeat is farther away than a compressor looks."""
    return np.resize(values, (rows, values.shape[1]))


if __name__ == "__main__":
    sys.exit(main())
