"""The benchmark of p-values moves labels as whole pictures, has every kind, and notices what is not as it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tree_for_tests import make_tree

from bench.features import nulls
from bench.features.nulls import evenness, moved_labels, p_values
from visae.data.index import read_index
from visae.explore.files import FeatureFiles


def of_shuffles(p: np.ndarray) -> pl.DataFrame:
    columns = {"p": p.ravel(), "shuffle": np.repeat(np.arange(len(p)), p.shape[1])}
    return pl.DataFrame(columns).with_columns(kind=pl.lit("f1"))


def test_even_p_values_pass_and_others_do_not() -> None:
    even = np.random.default_rng(0).random((20, 5))
    for p, holds in ((even, True), (even**4, False), (even**0.25, False), (np.ones((20, 5)), False)):
        (row,) = evenness(of_shuffles(p)).iter_rows(named=True)
        assert (row["ks_p"] > nulls.LEAST) == holds
        assert row["values"] == 100
        assert row["small"] == (p <= 0.05).mean()


@pytest.mark.slow
def test_labels_are_moved_within_splits_and_all_kinds_are_scored(tmp_path: Path) -> None:
    files = FeatureFiles.find(make_tree(tmp_path / "results"))
    (tmp_path / "moved").mkdir()
    moved = moved_labels(files, np.random.default_rng(0), tmp_path / "moved")
    before, after = (pl.read_parquet(part.patch_labels) for part in (files, moved))
    assert not before.sort("image_id", "token").equals(after.sort("image_id", "token"))
    for first, stop in ((0, 12), (12, 20), (20, 28)):
        within = pl.col("image_id").is_between(first, stop, closed="left")
        pictures = [part.filter(within).sort("token").partition_by("image_id") for part in (before, after)]
        of_pictures = [{tuple(one.select("label", "purity").rows()) for one in part} for part in pictures]
        assert of_pictures[0] == of_pictures[1]
        labels = [read_index(part.index)["label"][first:stop].sort().to_list() for part in (files, moved)]
        assert labels[0] == labels[1]
    found = p_values(files, 0)
    assert found["p"].is_between(0, 1).all()
    for units in ("patches", "pictures, by max", "pictures, by sum"):
        for metric in ("f1", "average_precision", "auc"):
            assert found["kind"].str.starts_with(f"{metric} of {units}").any()
    assert {"purity", "coverage", "probe", "probe, best of all latents"} <= set(found["kind"])
