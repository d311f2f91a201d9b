"""Purity and coverage: planted latents, closed forms, and noise that must not look pure."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import hypergeom, kstest

from visae.features.concepts import Labels
from visae.features.purity import _of_block, strongest
from visae.features.resampling import permutations

N, K = 80, 5


def frame(dense: np.ndarray) -> pl.LazyFrame:
    picture, token, latent = np.nonzero(dense)
    columns = {"image_id": picture, "token": token, "latent": latent, "value": dense[picture, token, latent]}
    return pl.DataFrame(columns).lazy()


def test_strongest_pictures_come_with_their_strongest_patch() -> None:
    dense = np.zeros((4, 3, 2))
    dense[1, 2, 0], dense[1, 0, 0], dense[3, 1, 0], dense[3, 2, 0] = 5, 4, 7, 7
    picture, token, active = strongest(frame(dense), range(2), range(1, 4), 3)
    assert picture.tolist() == [[2, 0, -1], [-1, -1, -1]]
    assert token.tolist() == [[1, 2, -1], [-1, -1, -1]]
    assert active.tolist() == [2, 0]


def test_a_planted_latent_is_pure_and_covers_its_class() -> None:
    random = np.random.default_rng(0)
    classes = random.integers(0, 4, N)
    dense = random.random((N, 1, 3))
    dense[:, 0, 1] *= classes == 2  # fires on class 2 and nothing else, ...
    first = np.flatnonzero(classes[N // 2 :] == 2)[0] + N // 2
    dense[first, 0, 1] = 0  # ... but for one picture
    dense[:, 0, 2] = 0
    fit = Labels(range(N // 2), classes[: N // 2, None], 4)
    measured = Labels(range(N // 2, N), classes[N // 2 :, None], 4)
    rows = _of_block(frame(dense), range(3), fit, measured, K, permutations(N // 2, 200, 0))
    row = rows.row(1, named=True)
    n_class, n_active = (classes[N // 2 :] == 2).sum(), (dense[N // 2 :, 0, 1] > 0).sum()
    assert (row["class_number"], row["purity_fit"], row["purity"], row["n"]) == (2, 1, 1, K)
    assert row["coverage"] == pytest.approx((n_class - 1) / n_class)
    assert row["coverage_null"] == pytest.approx(n_active / (N // 2))
    assert row["coverage_p"] == pytest.approx(hypergeom.sf(n_class - 2, N // 2, n_class, n_active))
    # All five of one class: the share of permutations agrees with the closed form.
    assert row["purity_p"] < 3 * hypergeom.sf(K - 1, N // 2, n_class, K) + 2 / 200
    assert row["purity_null"] == pytest.approx(n_class / (N // 2), abs=0.06)
    silent = rows.row(2, named=True)
    assert (silent["class_number"], silent["n"]) == (-1, 0)
    assert np.isnan([silent["purity"], silent["coverage"], silent["purity_p"], silent["coverage_p"]]).all()


def test_noise_is_pure_no_more_often_than_claimed() -> None:
    random = np.random.default_rng(2)
    width, patches = 400, 4
    dense = random.random((N, patches, width)) * (random.random((N, patches, width)) < 0.2)
    classes = random.integers(-1, 3, (N, patches))
    fit = Labels(range(N // 2), classes[: N // 2], 3)
    measured = Labels(range(N // 2, N), classes[N // 2 :], 3)
    orders = permutations(N // 2, 200, 0)
    rows = _of_block(frame(dense), range(width), fit, measured, K, orders)
    even = _of_block(frame(dense), range(width), fit, measured, K, orders, np.random.default_rng(0))
    for name in ("purity_p", "coverage_p"):
        assert (rows[name] <= 0.05).mean() < 0.05
        assert kstest(even[name], "uniform").pvalue > 0.01
    assert rows["purity"].mean() == pytest.approx(rows["purity_null"].mean(), abs=0.03)
