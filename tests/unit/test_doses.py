"""Summaries of dose-response curves against curves that are known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from visae.experiments.doses import rank_correlation, response


def test_the_dose_for_a_half_is_interpolated():
    doses = np.array([0.0, -1.0, -2.0, -4.0])
    found = response(doses, np.array([0.0, 0.2, 0.6, 0.9]), np.array([0.0, 0.1, 0.2, 0.4]))
    assert found["monotonicity"] == pytest.approx(1.0)
    assert found["half_dose"] == pytest.approx(-1.75)
    assert found["other_change_at_half"] == pytest.approx(0.175)


def test_a_curve_that_never_reaches_a_half_has_no_dose_for_it():
    found = response(np.array([0.0, 1.0, 2.0]), np.array([0.4, 0.3, 0.1]), np.zeros(3))
    assert found == {"monotonicity": pytest.approx(-1.0), "half_dose": None, "other_change_at_half": None}


def test_a_curve_that_is_beyond_a_half_at_once_reaches_it_there():
    found = response(np.array([0.0, 1.0]), np.array([0.7, 0.7]), np.array([0.1, 0.3]))
    assert found == {"monotonicity": None, "half_dose": 0.0, "other_change_at_half": pytest.approx(0.1)}


def test_the_rank_correlation_is_scipys():
    random = np.random.default_rng(0)
    for _ in range(200):
        first, second = random.integers(0, 6, 9) / 2, random.integers(0, 5, 9) / 4
        if np.ptp(first) and np.ptp(second):
            assert rank_correlation(first, second) == float(spearmanr(first, second).statistic)
