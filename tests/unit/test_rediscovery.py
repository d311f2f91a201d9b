"""saev's metrics: logistic regressions as scikit-learn fits them, the best of all latents, and closed forms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

from visae.features.benchmark.logistic import fit
from visae.features.benchmark.measured import NotMeasured
from visae.features.benchmark.rediscovery import best_probes, rediscovery
from visae.features.concepts import Labels


def blocks_of(dense: np.ndarray, size: int = 1000):
    """Codes (n_pictures, patches, width) in ranges of latents."""
    image, token, latent = np.nonzero(dense)
    columns = {"image_id": image, "token": token, "latent": latent, "value": dense[image, token, latent]}
    frame = pl.DataFrame(columns)

    def blocks() -> Iterator[tuple[range, pl.LazyFrame]]:
        for start in range(0, dense.shape[2], size):
            latents = range(start, min(start + size, dense.shape[2]))
            yield latents, frame.lazy().filter(pl.col("latent").is_between(start, latents.stop, closed="left"))

    return blocks


def made(seed: int, n: int = 80, patches: int = 4, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Codes, and classes of patches (-1 where there is none): latents 0 to 2 know classes 0 to 2 a little."""
    random = np.random.default_rng(seed)
    classes = random.integers(-1, 4, (n, patches))
    dense = random.random((n, patches, width)) * (random.random((n, patches, width)) < 0.3)
    for number in range(3):
        dense[..., number] += random.gamma(2, 1, (n, patches)) * (
            (classes == number) & (random.random((n, patches)) < 0.7)
        )
    # Active everywhere but on class 3.
    dense[..., 7] = (1 + random.random((n, patches))) * ((classes != 3) | (random.random((n, patches)) < 0.1))
    return dense.round(2), classes


def units(dense: np.ndarray, classes: np.ndarray, pictures: slice) -> tuple[np.ndarray, np.ndarray]:
    known = classes[pictures] >= 0
    return dense[pictures][known], classes[pictures][known]


def by_scikit_learn(values: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Bias, weight and loss of the regression without a penalty."""
    regression = LogisticRegression(C=np.inf, max_iter=10_000, tol=1e-10).fit(values[:, None], truth)
    loss = log_loss(truth, regression.predict_proba(values[:, None])[:, 1], normalize=False)
    return float(regression.intercept_[0]), float(regression.coef_[0, 0]), loss


def test_fits_are_those_of_scikit_learn() -> None:
    dense, classes = made(0)
    values, truth = units(dense, classes, slice(None))
    for latent in (0, 1, 7, 20):
        column = values[:, latent]
        active = column > 0
        hits = truth[active] == np.arange(4)[:, None]
        positives = np.bincount(truth, minlength=4)
        fits = fit(column[active], hits, len(truth), positives)
        losses = fits.losses(column[active], hits, (~active).sum(), positives - hits.sum(axis=1))
        for number in range(4):
            bias, weight, loss = by_scikit_learn(column, truth == number)
            assert (fits.bias[number], fits.weight[number]) == pytest.approx((bias, weight), abs=2e-3)
            assert losses[number] == pytest.approx(loss, rel=1e-6)


def test_a_latent_that_tells_perfectly_leaves_no_loss() -> None:
    hits = np.ones((1, 30), dtype=bool)
    fits = fit(np.full(30, 5.0), hits, 100, np.array([30]))
    assert fits.losses(np.full(30, 5.0), hits, 70, np.array([0]))[0] < 1e-3
    assert np.isfinite([fits.bias[0], fits.weight[0]]).all()


@pytest.mark.parametrize("size", [7, 1000])
def test_the_best_latent_is_the_best_of_all(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visae.features.benchmark.rediscovery.CANDIDATES", 4)
    monkeypatch.setattr("visae.features.benchmark.rediscovery._CHUNK", 50 * size)
    dense, classes = made(1)
    values, truth = units(dense, classes, slice(None))
    found = best_probes(blocks_of(dense, size), Labels(range(80), classes, 5))
    assert sorted(found) == [0, 1, 2, 3]  # class 4 is nowhere
    for number, probe in found.items():
        losses = [by_scikit_learn(values[:, latent], truth == number)[2] for latent in range(60)]
        assert probe.latent == np.argmin(losses)
    assert found[3].latent == 7
    assert found[3].weight < 0


def test_metrics_are_those_of_dense_values() -> None:
    dense, classes = made(2)
    fit_on, measured = Labels(range(50), classes[:50], 4), Labels(range(50, 80), classes[50:], 4)
    found = {metric.name: metric for metric in rediscovery(blocks_of(dense, 13), fit_on, measured, 0)}
    learned, known = units(dense, classes, slice(0, 50))
    values, truth = units(dense, classes, slice(50, 80))
    relative, precisions, purities = [], [], []
    for number, probe in best_probes(blocks_of(dense), fit_on).items():
        bias, weight, _ = by_scikit_learn(learned[:, probe.latent], known == number)
        chance = 1 / (1 + np.exp(-(bias + weight * values[:, probe.latent])))
        alone = log_loss(truth == number, np.full(len(truth), (known == number).mean()))
        relative.append(1 - log_loss(truth == number, chance) / alone)
        precisions.append(average_precision_score(truth == number, np.sign(weight) * values[:, probe.latent]))
        strongest = np.argsort(-values[:, probe.latent], kind="stable")[:16]
        purities.append((truth[strongest] == number).mean())
    assert found["probe_r"].value.value == pytest.approx(np.mean(relative), abs=1e-3)
    assert found["mean_average_precision"].value.value == pytest.approx(np.mean(precisions), abs=1e-6)
    assert found["purity_at_16"].value.value == pytest.approx(np.mean(purities), abs=0.04)  # but for ties
    assert found["coverage_at_0.3"].value.value == np.mean(np.array(precisions) >= 0.3)
    for metric in found.values():
        assert metric.value.low <= metric.value.value <= metric.value.high
        assert metric.n == 4


def test_a_latent_that_is_its_class_and_one_that_is_noise() -> None:
    random = np.random.default_rng(0)
    classes = random.integers(0, 2, (100, 6))
    perfect = np.zeros((100, 6, 1))
    perfect[..., 0] = np.where(classes == 1, 1 + random.random((100, 6)), 0)
    labels = Labels(range(50), classes[:50], 2), Labels(range(50, 100), classes[50:], 2)
    r, precision, purity, coverage = (metric.value.value for metric in rediscovery(blocks_of(perfect), *labels, 0))
    assert r > 0.99
    # The latent is also the best for class 0, by its silence: all silent units are one step of precision 1.
    assert precision == pytest.approx(1)
    assert purity == 0.5  # of class 1 all, of class 0 none: it is silent there
    assert coverage == 1
    noise = random.random((100, 6, 3)) * (random.random((100, 6, 3)) < 0.3)
    r, precision, _, _ = rediscovery(blocks_of(noise), *labels, 0)
    assert r.value.low < 0.01
    assert precision.value.value == pytest.approx(0.5, abs=0.07)


def test_a_binary_latents_r_is_that_of_its_table() -> None:
    """On the pictures that it was fitted on, R is the mutual information over the entropy."""
    random = np.random.default_rng(3)
    classes = (random.random((60, 5)) < 0.3).astype(np.int64)
    dense = (random.random((60, 5)) < np.where(classes == 1, 0.8, 0.2))[..., None].astype(float)
    same = Labels(range(60), classes, 2)
    found = rediscovery(blocks_of(dense), same, same, 0)[0].value.value
    active, truth = dense.ravel() > 0, classes.ravel() == 1
    table = np.array([[(active == a) & (truth == b) for b in (True, False)] for a in (True, False)]).mean(axis=2)
    entropy = -sum(p * np.log(p) for p in table.sum(axis=0))
    information = (table * np.log(table / (table.sum(axis=1, keepdims=True) * table.sum(axis=0)))).sum()
    assert found == pytest.approx(information / entropy, abs=1e-6)


def test_intervals_shrink_with_the_pictures() -> None:
    widths = []
    for n in (60, 960):
        dense, classes = made(5, n=n)
        half = n // 2
        labels = Labels(range(half), classes[:half], 4), Labels(range(half, n), classes[half:], 4)
        value = rediscovery(blocks_of(dense), *labels, 0)[1].value
        widths.append(value.high - value.low)
    assert widths[1] < widths[0] / 2


def test_classes_that_are_on_one_side_alone_are_left_out() -> None:
    dense, classes = made(6)
    classes = np.where(classes == 2, 0, classes)
    classes[:40][classes[:40] == 1] = 0  # class 1 is measured alone
    classes[40:][classes[40:] == 3] = 0  # class 3 is learned alone
    labels = Labels(range(40), classes[:40], 4), Labels(range(40, 80), classes[40:], 4)
    assert rediscovery(blocks_of(dense), *labels, 0)[0].n == 1
    nothing = Labels(range(40), np.full((40, 4), -1), 4)
    with pytest.raises(NotMeasured, match="no class has units"):
        rediscovery(blocks_of(dense), nothing, labels[1], 0)
