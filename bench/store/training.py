"""How long a trainer waits for its data, as its own log says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from bench.harness import Measurement, Target, measurement
from visae.activations.given import write_store
from visae.config.settings import TopKSettings
from visae.sae.trainer import train

N_TOKENS = 257
HARDLY = Target("value", "<", 0.02)


def measure(folder: Path, activations: np.ndarray, steps: int) -> list[Measurement]:
    """Train a TopK SAE of width 6144 on a float16 store; the share of the time spent waiting for batches."""
    pictures = activations.reshape(-1, N_TOKENS, activations.shape[1])
    tokens, dtype = [-1, *range(N_TOKENS - 1)], "float16"
    manifest = write_store(folder / "store", pictures, tokens, {"train": len(pictures)}, dtype=dtype)
    settings = TopKSettings(variant="topk", expansion=16, steps=steps, batch_size=4096, checkpoint_every=steps)
    summary = train(settings, [manifest], folder / "sae", folder / "work")
    logged = pl.read_parquet(folder / "sae" / "metrics.parquet").filter(split="train")["data_wait_share"]
    return [
        measurement("training: tokens a second", summary["tokens_per_second"], "tokens/s"),
        measurement("training: share of the time waiting for data", float(logged[1:].median()), "", None, HARDLY),
    ]
