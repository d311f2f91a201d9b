"""Planted latents are found beyond chance, and where there is nothing to find p-values are what they claim to be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from scipy.stats import false_discovery_control, kstest

from visae.features import concepts
from visae.features.concepts import Blocks, Labels
from visae.features.resampling import benjamini_hochberg, p_value, permutations, wilson_interval
from visae.features.scores import score_table

N_PICTURES, N_TOKENS, WIDTH = 30, 4, 6
CLASSES = {4: "sky", 7: "road"}


def given(dense: np.ndarray) -> Blocks:
    picture, token, latent = np.nonzero(dense)
    columns = {"image_id": picture, "token": token, "latent": latent, "value": dense[picture, token, latent]}
    codes = pl.DataFrame(columns).cast({"image_id": pl.Int32, "latent": pl.Int32, "value": pl.Float32}).lazy()

    def blocks() -> Iterator[tuple[range, pl.LazyFrame]]:
        yield range(dense.shape[2]), codes

    return blocks


def halves(classes: np.ndarray) -> list[Labels]:
    middle = len(classes) // 2
    first, second = range(middle), range(middle, len(classes))
    return [Labels(first, classes[:middle], 2), Labels(second, classes[middle:], 2)]


def noise(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Codes and labels that know nothing of each other, each nearly the same in all patches of a picture."""
    dense = random.random((N_PICTURES, 1, WIDTH)) * (random.random((N_PICTURES, 1, WIDTH)) < 0.5)
    dense = dense + np.zeros((1, N_TOKENS, 1)) + 0.01 * random.random((N_PICTURES, N_TOKENS, WIDTH)) * (dense > 0)
    classes = np.repeat(random.integers(0, 2, (N_PICTURES, 1)), N_TOKENS, axis=1)
    return dense, classes


def test_a_planted_latent_is_beyond_chance_and_the_others_are_not() -> None:
    random = np.random.default_rng(4)
    dense, classes = noise(random)
    dense[..., 2] = (classes == 1) * (1 + random.random(classes.shape))
    table = score_table(given(dense), CLASSES, halves(classes), "auc", 99, 0)
    best = table.filter(pl.col("rank") == 0, pl.col("class_name") == "road").row(0, named=True)
    assert best["latent"] == 2
    for metric in ("f1", "average_precision", "auc"):
        assert best[metric] == best[f"{metric}_low"] == best[f"{metric}_high"] == 1
        assert best[f"{metric}_null"] < best[f"{metric}_null_best"] < 1
        assert best[f"{metric}_p"] == best[f"{metric}_p_best"] == 0.01
        assert best[f"{metric}_q"] == 0.02 or best[f"{metric}_q"] == 0.01
        assert best[f"{metric}_best"] == 1
    # What the best of all latents reaches is said of the class, in all of its rows; what the latent reaches is its own.
    road = table.filter(pl.col("class_name") == "road")
    assert road["auc_p_best"].to_list() == [0.01] * road.height
    assert road.filter(pl.col("latent") != 2)["auc_q"].min() > 0.05


@pytest.mark.slow
def test_noise_is_found_significant_no_more_often_than_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concepts, "RESAMPLES", 2)  # intervals are not looked at here
    random, ties = np.random.default_rng(1), np.random.default_rng(2)
    best = []
    for repeat in range(150):
        dense, classes = noise(random)
        table = score_table(given(dense), CLASSES, halves(classes), "f1", 39, repeat, ties)
        best.append(table.filter(pl.col("rank") == 0, pl.col("class_id") == 4))
    rows = pl.concat(best)
    for metric in ("f1", "average_precision", "auc"):
        for p in (rows[f"{metric}_p"], rows[f"{metric}_p_best"]):
            # Expected at 5 %: 7.5 of 150; more than 15 has a probability below 0.5 %.
            assert (p <= 0.05).sum() <= 15
            assert kstest(p.to_numpy(), "uniform").pvalue > 0.01
    # Labels that are moved patch by patch would call most of this significant.
    assert rows["auc"].std() > 0.1


def test_labels_are_moved_as_whole_pictures() -> None:
    orders = permutations(N_PICTURES, 50, seed=3)
    assert (np.sort(orders, axis=1) == np.arange(N_PICTURES)).all()
    assert len(np.unique(orders, axis=0)) == 50


def test_p_values_count_the_observed_score_among_the_null() -> None:
    null = np.array([0.1, 0.2, 0.3, 0.4])
    assert p_value(0.5, null) == 1 / 5
    assert p_value(0.3, null) == 3 / 5
    assert np.isnan(p_value(np.nan, null))


def test_broken_ties_make_p_values_even_and_never_larger() -> None:
    random = np.random.default_rng(0)
    draws = random.integers(0, 3, (20, 5000)).astype(float)  # scores with three values
    counted, broken = p_value(draws[0], draws[1:]), p_value(draws[0], draws[1:], random)
    assert kstest(broken, "uniform").pvalue > 0.01
    assert kstest(counted, "uniform").pvalue < 1e-6
    assert (broken <= counted).all()
    assert (counted <= 0.05).mean() <= 0.05


def test_benjamini_hochberg_is_that_of_scipy() -> None:
    p = np.random.default_rng(0).random(40) ** 3
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))
    with_gap = benjamini_hochberg(np.array([0.01, np.nan, 0.04]))
    assert with_gap[[0, 2]] == pytest.approx(false_discovery_control([0.01, 0.04]))
    assert np.isnan(with_gap[1])


def test_wilson_interval_of_a_known_case() -> None:
    low, high = wilson_interval(np.array([9, 0]), np.array([10, 0]))
    assert (low[0], high[0]) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert np.isnan([low[1], high[1]]).all()
