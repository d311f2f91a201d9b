"""Softmax regression by torch against scikit-learn, on features of real pictures, and the choice of C."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from visae.config.settings import ProbeSettings
from visae.heads.solvers import SOLVERS, by_scikit_learn, by_torch, choose_c, chosen_solver, held_out_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    """Scanned digits: 1797 pictures of 64 pixels, some of which never vary."""
    features, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    return features[order].astype(np.float32), classes[order]


def probabilities(weights, features):
    weight, bias = weights
    return torch.from_numpy(features @ weight.T + bias).softmax(dim=1).numpy()


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_torch_gives_scikit_learns_answer_on_real_pictures(digits, c, monkeypatch):
    monkeypatch.setattr("visae.heads.solvers._PIECE", 500)
    features, classes = digits
    fit, rest = np.arange(1000), np.arange(1000, len(classes))
    found = [probabilities(solver(features, fit, classes, c, 1000, CPU), features[rest]) for solver in SOLVERS.values()]
    accuracies = [(p.argmax(axis=1) == classes[rest]).mean() for p in found]
    assert accuracies[0] > 0.9
    assert abs(accuracies[0] - accuracies[1]) <= 1e-3
    mean, scale = features[fit].mean(axis=0), np.where(features[fit].std(axis=0) > 0, features[fit].std(axis=0), 1)
    reference = LogisticRegression(C=c, max_iter=5000, tol=1e-7).fit((features[fit] - mean) / scale, classes[fit])
    exact = reference.predict_proba((features[rest] - mean) / scale)
    np.testing.assert_allclose(found[1], exact, atol=5e-3)


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_two_classes_give_two_rows_with_scikit_learns_probabilities(solver):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(40, 3)) * [1, 10, 0] + [0, 5, 2]  # the last feature is constant
    classes = (features[:, 0] + 0.3 * rng.normal(size=40) > 0).astype(int)
    found = solver(features, np.arange(40), classes, 1.0, 1000, CPU)
    assert found[0].shape == (2, 3)
    standard = (features - features.mean(axis=0)) / np.where(features.std(axis=0) > 0, features.std(axis=0), 1)
    reference = LogisticRegression(C=1.0, max_iter=1000, tol=1e-8).fit(standard, classes).predict_proba(standard)
    np.testing.assert_allclose(probabilities(found, features), reference, atol=1e-3)


def test_rows_that_are_not_fitted_have_no_part(digits):
    features, classes = digits[0].copy(), digits[1]
    fit = np.arange(0, 600, 2)
    before = [solver(features, fit, classes, 0.1, 50, CPU)[0] for solver in SOLVERS.values()]
    features[1:600:2] = 1e6
    after = [solver(features, fit, classes, 0.1, 50, CPU)[0] for solver in SOLVERS.values()]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("solver", [by_scikit_learn, by_torch])
def test_strong_regularization_wins_on_noise_and_weak_on_signal(solver):
    rng = np.random.default_rng(2)
    classes = np.arange(200) % 2
    noise = rng.normal(size=(200, 50))
    signal = np.concatenate([noise[:, :2], 8 * classes[:, None] + noise[:, :1]], axis=1)
    settings = ProbeSettings(c_values=[1e-4, 100.0])
    assert choose_c(noise, classes, settings, 0, solver)[0] == 1e-4
    assert choose_c(signal, classes, settings, 0, solver)[0] == 100.0


def test_many_values_go_to_torch():
    assert chosen_solver("auto", 10_000_000) == "scikit-learn"
    assert chosen_solver("auto", 1_280_000 * 768) == "torch"
    assert chosen_solver("torch", 10) == "torch"


def test_a_share_of_each_class_is_held_out_and_never_all_of_it():
    classes = np.repeat(np.arange(103), [1, 50, 100, *[2] * 100])
    held_out = np.array([held_out_rows(classes, seed) for seed in range(20)])
    of_class = np.array([[h[classes == c].sum() for c in range(103)] for h in held_out])
    assert (of_class[:, 0] == 0).all()  # its only picture is learned from
    assert (of_class[:, 1:3] == [10, 20]).all()
    assert of_class[:, 3:].max() == 1
    assert of_class[:, 3:].mean() == pytest.approx(0.4, abs=0.05)  # a fifth of two pictures


def test_without_pictures_to_hold_out_the_first_c_is_taken():
    features, classes = np.eye(3), np.arange(3)
    assert choose_c(features, classes, ProbeSettings(c_values=[2.0, 1.0]), 0) == (2.0, {})
