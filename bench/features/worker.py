"""One job of `python -m bench.features` in a process of its own: prints its seconds and its peak memory as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import torch

from bench.features.data import PATCHES, WIDTH
from bench.peak_memory import own_peak
from visae.config.settings import FeatureSettings
from visae.features.blocks import codes_by_latents
from visae.features.codes import read_codes_manifest, scan_codes
from visae.features.encoding import encode_store
from visae.features.exemplars import find_exemplars
from visae.features.statistics import QUANTILES, write_statistics


def statistics(folder: Path) -> pl.DataFrame:
    """All that stats.parquet has."""
    paths = (folder / f for f in ("manifest.json", "config.json", "index.parquet", "stats.parquet"))
    write_statistics(*paths, FeatureSettings())
    return pl.read_parquet(folder / "stats.parquet")


def common(folder: Path) -> pl.DataFrame:
    """The columns that DuckDB computes, in the ranges of latents that statistics are computed in."""
    value = pl.col("value")
    blocks = [
        codes.group_by("latent")
        .agg(
            pl.len().alias("count"),
            value.cast(pl.Float64).mean().alias("mean"),
            value.max().alias("max"),
            value.cast(pl.Float64).std(ddof=0).alias("standard_deviation"),
            *(value.quantile(percent / 100, "linear").alias(f"quantile_{percent}") for percent in QUANTILES),
            pl.col("image_id").n_unique().alias("images"),
        )
        .collect()
        for _, codes in codes_by_latents(folder / "manifest.json")
    ]
    return pl.concat(blocks)


def with_duckdb(folder: Path, threads: int) -> pl.DataFrame:
    """The same in SQL."""
    connection = duckdb.connect(config={"threads": threads})
    shares = ", ".join(str(percent / 100) for percent in QUANTILES)
    names = ["latent", "count", "mean", "max", "standard_deviation", "images", "quantiles"]
    query = f"""
        SELECT latent, count(*), avg(value), max(value), stddev_pop(value), count(DISTINCT image_id),
        quantile_cont(value, [{shares}]) FROM '{folder}/shard-*.parquet' GROUP BY latent
    """
    found = pl.DataFrame(connection.sql(query).fetchall(), schema=names, orient="row")
    return found.with_columns(
        pl.col("quantiles").list.get(place).alias(f"quantile_{percent}") for place, percent in enumerate(QUANTILES)
    ).drop("quantiles")


def one_latent(folder: Path) -> pl.DataFrame:
    """Codes of a latent in the middle, as the pages of a latent or its exemplars need them."""
    return scan_codes(folder / "manifest.json").filter(pl.col("latent") == WIDTH // 2).collect()


def from_activations(folder: Path) -> pl.DataFrame:
    """Encode a store, describe its latents, and find 128 exemplars each, as saev does."""
    encode_store(folder / "store" / "manifest.json", folder / "config.json", folder, "cpu")
    statistics(folder)
    found = find_exemplars(scan_codes(folder / "manifest.json"), FeatureSettings(exemplars=128))
    return found.filter(kind="top")


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    torch.set_num_threads(given["threads"])
    jobs: dict[str, Callable[[], pl.DataFrame]] = {
        "statistics": lambda: statistics(folder),
        "common": lambda: common(folder),
        "duckdb": lambda: with_duckdb(folder, given["threads"]),
        "one latent": lambda: one_latent(folder),
        "from activations": lambda: from_activations(folder),
    }
    started = time.perf_counter()
    rows = jobs[given["job"]]().height
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, "megabytes": own_peak(), "rows": rows}
    if "images" in given:
        assert read_codes_manifest(folder / "manifest.json")["n_images"] == given["images"]
        found["patches_a_second"] = given["images"] * PATCHES / seconds
    print(json.dumps(found))


if __name__ == "__main__":
    main()
