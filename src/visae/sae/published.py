"""What is published beside an SAE's weights: metrics.parquet, and what summary.json says of where it belongs."""

from __future__ import annotations

from typing import Any

import polars as pl

from visae.sae.data import TrainingData
from visae.sae.place import Place

METRICS = (
    *("loss", "reconstruction", "auxk", "sparsity", "gate_reconstruction"),
    *("normalized_mse", "explained_variance", "l0", "l1"),
    *("dead_share", "dense_share", "gradient_norm", "learning_rate", "tokens_per_second", "data_wait_share"),
)


def metrics_table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Table of metrics.parquet: a row for each `step` and `split`, null where a metric was not taken."""
    schema = {"step": pl.Int64, "split": pl.String, **dict.fromkeys(METRICS, pl.Float64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def place_of(data: TrainingData) -> Place:
    """Where the activations of the stores are from; given activations may say nothing of a model."""
    read = data.stores[0].manifest
    model = read.get("model") or {}
    return Place(
        model=model.get("architecture"),
        weights_sha256=model.get("weights_sha256"),
        layer=read.get("layer"),
        hook=read.get("hook") or "residual",
        tokens=data.kinds,
    )


def points(data: TrainingData) -> dict[str, Any]:
    """Where in the model an SAE reads, and where what it gives belongs."""
    read = data.stores[0].manifest
    found = {"layer": read.get("layer"), "hook": read.get("hook")}
    if data.targets:
        target = data.targets[0].manifest
        found |= {"d_target": data.d_target}
        found |= {"target_layer": target.get("layer"), "target_hook": target.get("hook")}
    return found
