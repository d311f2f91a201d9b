"""The contenders of bench/features compute the same."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.features import data as features_data
from bench.features.data import PATCHES, write_activations, write_features
from bench.features.worker import common, from_activations, one_latent, statistics, with_duckdb
from visae.features.codes import scan_codes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    write_features(folder, 40_000)
    return folder


def test_duckdb_and_polars_agree_with_the_statistics(folder: Path) -> None:
    ours, theirs = common(folder).sort("latent"), with_duckdb(folder, threads=1).sort("latent")
    every = statistics(folder).filter(~pl.col("dead")).select(ours.columns)
    for other in (theirs, every):
        assert_frame_equal(ours, other.select(ours.columns), check_dtypes=False, rel_tol=1e-5, abs_tol=1e-6)


def test_both_orders_hold_the_same_codes(folder: Path, tmp_path: Path) -> None:
    write_features(tmp_path, 40_000, by_latent=False)
    keys = ("image_id", "token", "latent")
    ours, other = (scan_codes(path / "manifest.json").collect().sort(keys) for path in (folder, tmp_path))
    assert_frame_equal(ours, other, check_dtypes=False)
    assert one_latent(folder).height == one_latent(tmp_path).height


def test_the_made_sae_has_the_sparsity_that_it_says(tmp_path: Path) -> None:
    write_activations(tmp_path / "made", 3)
    exemplars = from_activations(tmp_path / "made")
    assert exemplars["rank"].max() <= 2
    stats = pl.read_parquet(tmp_path / "made/stats.parquet")
    assert stats["count"].sum() / (3 * PATCHES) == pytest.approx(features_data.ACTIVE, rel=0.05)
    raw = np.fromfile(tmp_path / "made/acts000000.bin", np.float32)
    assert raw.size == 3 * (1 + PATCHES) * features_data.D_MODEL
