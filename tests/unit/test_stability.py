"""Matched dictionaries: permuted copies agree, unrelated ones do not, bounds hold, and chance looks like chance."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from visae.errors import ConfigError, ModelError
from visae.features.stability import _like, _unit, compare, compare_seeds, matched_cosines, nearest
from visae.sae.autoencoder import SparseAutoencoder, save_sae
from visae.sae.variants.topk import TopK


def random_rows(width: int, d_model: int, seed: int) -> np.ndarray:
    return _unit(np.random.default_rng(seed).standard_normal((width, d_model)).astype(np.float32))


def test_a_permuted_copy_is_the_same_dictionary() -> None:
    rows = random_rows(40, 8, 0)
    found = compare(rows, np.random.default_rng(1).permutation(rows), "hungarian", 19, 0)
    for name in ("mean", "low", "high", "found_again", "lower_bound", "upper_bound", "mutual"):
        assert found[name] == pytest.approx(1, abs=1e-6)
    assert found["null"] < 0.8
    assert found["p"] == 0.05


def test_the_matching_is_the_best_of_all() -> None:
    first, second = random_rows(5, 3, 2), random_rows(6, 3, 3)
    cosines = first @ second.T
    best = max(cosines[range(5), list(order)].sum() for order in permutations(range(6), 5))
    assert matched_cosines(first, second).sum() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("widths", [(30, 30), (20, 50), (50, 20)])
def test_bounds_hold_for_any_widths(widths: tuple[int, int]) -> None:
    for seed in range(5):
        found = compare(random_rows(widths[0], 6, seed), random_rows(widths[1], 6, seed + 100), "hungarian", 1, 0)
        assert found["lower_bound"] <= found["mean"] <= found["upper_bound"] + 1e-6
        assert (found["width_first"], found["width_second"]) == widths


def test_nearest_in_blocks_is_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visae.features.stability._BLOCK_ROWS", 7)
    first, second = random_rows(30, 5, 0), random_rows(20, 5, 1)
    found, cosines = nearest(first, second), first @ second.T
    assert found.partner.tolist() == cosines.argmax(axis=1).tolist()
    assert found.partner_back.tolist() == cosines.argmax(axis=0).tolist()
    assert found.cosine_back == pytest.approx(cosines.max(axis=0))
    assert compare(first, second, "nearest", 1, 0)["mean"] is None


def test_unrelated_dictionaries_are_significant_no_more_often_than_claimed() -> None:
    p = [
        compare(random_rows(12, 6, seed), random_rows(12, 6, 1000 + seed), "hungarian", 19, seed)["p"]
        for seed in range(60)
    ]
    # Expected at 5 %: 3 of 60; more than 9 has a probability below 0.1 %. The covariance is estimated, so roughly.
    assert (np.array(p) <= 0.05).sum() <= 9


def test_the_null_has_the_covariance_of_the_rows() -> None:
    random = np.random.default_rng(0)
    rows = _unit((random.standard_normal((600, 3)) * [3, 1, 0.1]).astype(np.float32))
    drawn = _like(rows, random)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(1)
    assert (drawn**2).mean(axis=0)[2] < 0.05 < (drawn**2).mean(axis=0)[1]
    assert (drawn**2).mean(axis=0)[0] > 0.5


def saved(folder: Path, seed: int, **settings: int) -> Path:
    sae = SparseAutoencoder(settings.pop("d_model", 6), 10, TopK(2))
    with torch.no_grad():
        rows = np.random.default_rng(seed).standard_normal(sae.decoder_weight.shape).astype(np.float32)
        sae.decoder_weight.copy_(torch.from_numpy(_unit(rows)))
    return save_sae(sae, folder, settings={"seed": seed, **settings})


def test_saes_are_compared_by_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twins = [saved(tmp_path / f"{seed}", seed, k=2) for seed in (0, 1)]
    other = saved(tmp_path / "other", 2, k=3)
    compare_seeds([*twins, other], tmp_path / "all.parquet", draws=2)
    assert pl.read_parquet(tmp_path / "all.parquet").height == 3
    compare_seeds([*twins, other], tmp_path / "twins.parquet", draws=2, same_settings=True)
    table = pl.read_parquet(tmp_path / "twins.parquet")
    assert table.select("first", "second").rows() == [tuple(map(str, twins))]
    assert "mean matched cosine" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no two SAEs"):
        compare_seeds([twins[0], other], same_settings=True)
    with pytest.raises(ConfigError, match="choose hungarian or nearest"):
        compare_seeds(twins, matching="best")
    with pytest.raises(ModelError, match="6 and 5 dimensions"):
        compare_seeds([twins[0], saved(tmp_path / "narrow", 3, d_model=5)])
