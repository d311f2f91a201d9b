"""The outlier severity of a store, against its formula in NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visae.activations.given import write_store
from visae.activations.manifest import read_manifest
from visae.activations.severity import Moments


def severity(rows: np.ndarray) -> float:
    rows = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
    return float(np.linalg.norm(rows.mean(0)) / np.linalg.norm(rows.std(0)))


@pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_manifest_has_the_severity_of_each_kind_of_token(tmp_path: Path, offset: float, shards: int) -> None:
    values = np.random.default_rng(0).normal(size=(70, 12, 6)).astype(np.float32)
    values[..., 2] += offset
    values[:, 0] -= 5
    path = write_store(tmp_path, values, [-1, -2, *range(10)], {"train": 70}, shards=shards)
    found = read_manifest(path)["outlier_severity"]
    assert found["patches"] == pytest.approx(severity(values[:, 2:]), rel=1e-6)
    assert found["class"] == pytest.approx(severity(values[:, :1]), rel=1e-6)
    assert found["all"] == pytest.approx(severity(values), rel=1e-6)
    assert found["images"] == 70


def test_without_class_tokens_or_spread_there_is_none(tmp_path: Path) -> None:
    found = read_manifest(write_store(tmp_path, np.ones((5, 4, 3)), [0, 1, 2, 3], {"train": 5}))["outlier_severity"]
    assert found == {"patches": None, "class": None, "all": None, "images": 5}


def test_of_a_large_store_a_part_from_everywhere_is_read(tmp_path: Path) -> None:
    # 40 row groups, the mean of which moves: neither the first nor the last alone would do.
    values = np.random.default_rng(0).normal(size=(80, 4096, 2)).astype(np.float32)
    values[..., 0] += np.linspace(0, 10, 80)[:, None]
    path = write_store(tmp_path, values, list(range(4096)), {"train": 80}, shards=2)
    found = read_manifest(path)["outlier_severity"]
    assert found["images"] == 32
    assert found["patches"] == pytest.approx(severity(values), rel=0.02)


def test_moments_of_weighted_parts_are_those_of_repeated_rows() -> None:
    first, second = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) + 1e4 for n in (7, 3))
    moments = Moments()
    moments.add(first, 2.0)
    moments.add(second)
    rows = torch.cat([first, first, second]).double()
    torch.testing.assert_close(moments.mean, rows.mean(0))
    torch.testing.assert_close(moments.deviation, rows.std(0, correction=0), rtol=1e-6, atol=0)
