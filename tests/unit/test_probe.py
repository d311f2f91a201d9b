"""The linear probe against scikit-learn, its module, and the bootstrap against closed forms."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from visae.activations.given import write_store
from visae.config.settings import ModelSettings, ProbeSettings
from visae.errors import DataError, StoreError
from visae.heads.bootstrap import class_mean, interval, ratios, resampling_weights
from visae.heads.probe import choose_c, fitted_weights, load_probe, measured_accuracy, pooled, train_probe
from visae.vision.model import load_model, prepare_model

N_CLASSES = 3


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    settings = ModelSettings(architecture="test_vit", weights="random", image_size=64)
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
    return folder / "model.json"


def made_task(folder, card, n_fit=60, n_measure=30, labels=True):
    """A store whose pictures carry their class as an offset, and an index that names it."""
    model = load_model(card)
    rng = np.random.default_rng(0)
    n = n_fit + n_measure
    classes = np.arange(n) % N_CLASSES
    centres = rng.normal(size=(N_CLASSES, model.card.layers[0].d_model))
    tokens = (
        rng.normal(size=(n, len(model.card.tokens(0)), model.card.layers[0].d_model)) + 0.4 * centres[classes][:, None]
    )
    manifest = write_store(folder, tokens.astype(np.float32), model.card.tokens(0), {"train": n_fit, "val": n_measure})
    index = pl.DataFrame(
        {
            "image_id": pl.Series(range(n), dtype=pl.Int32),
            "path": [f"{i}.png" for i in range(n)],
            "split": ["train"] * n_fit + ["val"] * n_measure,
            "label": pl.Series([int(c) + 5 if labels else None for c in classes], dtype=pl.Int32),
            "label_name": [f"class {c + 5}" if labels else None for c in classes],
            "mask_path": pl.Series([None] * n, dtype=pl.String),
            "width": pl.Series([64] * n, dtype=pl.Int32),
            "height": pl.Series([64] * n, dtype=pl.Int32),
            "sha256": ["0"] * n,
        }
    )
    index.write_parquet(folder / "index.parquet")
    summary = {"kind": "image_folder", "classes": [{"id": c + 5, "name": f"class {c + 5}"} for c in range(N_CLASSES)]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return model, manifest, folder / "index.parquet", tokens, classes + 5


def train(settings, manifest, index, card, output):
    splits = {"fit_split": "train", "measure_split": "val"}
    return train_probe(
        settings, manifest=manifest, index_path=index, card_path=card, output=output, **splits, device="cpu", seed=0
    )


def test_probe_predicts_as_scikit_learn_does(tmp_path, card):
    model, manifest, index, tokens, labels = made_task(tmp_path, card)
    metrics = train(ProbeSettings(c_values=[0.1]), manifest, index, card, tmp_path / "probe")
    final = model.final_norm(torch.from_numpy(tokens).float())
    features = np.concatenate([final[:, 0].numpy(), final[:, 1:].mean(dim=1).numpy()], axis=1).astype(np.float64)
    mean, std = features[:60].mean(axis=0), features[:60].std(axis=0)
    reference = LogisticRegression(C=0.1, max_iter=1000).fit((features[:60] - mean) / std, labels[:60])

    probe = load_probe(tmp_path / "probe/metrics.json")
    with torch.no_grad():
        probabilities = probe(final).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, reference.predict_proba((features - mean) / std), atol=1e-4)
    assert [c["id"] for c in probe.classes] == reference.classes_.tolist()
    assert metrics["classes"][0] == {"id": 5, "name": "class 5"}
    predicted = reference.predict((features[60:] - mean) / std)
    assert metrics["accuracy"] == pytest.approx((predicted == labels[60:]).mean())
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels[60:], predicted))
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    assert metrics["provenance"]["device"].startswith("cpu")


def test_probe_is_differentiable_in_the_tokens(tmp_path, card):
    model, manifest, index, tokens, _ = made_task(tmp_path, card)
    train(ProbeSettings(c_values=[1.0]), manifest, index, card, tmp_path / "probe")
    probe = load_probe(tmp_path / "probe/metrics.json")
    few = torch.from_numpy(tokens[:2]).float().requires_grad_()
    probe(model.final_norm(few))[:, 0].sum().backward()
    assert few.grad is not None
    assert few.grad.abs().amin(dim=(0, 2)).shape == (17,)
    assert (few.grad.abs().sum(dim=2) > 0).all()


def test_pooling_reads_patches_only_where_there_is_no_class_token():
    tokens = torch.arange(24.0).view(1, 4, 6)
    torch.testing.assert_close(pooled(tokens, 0, False), tokens.mean(dim=1))
    with_register = pooled(tokens, 2, True)  # [CLS], one register, two patches
    torch.testing.assert_close(with_register, torch.cat([tokens[:, 0], tokens[:, 2:].mean(dim=1)], dim=1))


def test_two_classes_give_two_rows_with_scikit_learns_probabilities():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(40, 3)) * [1, 10, 0] + [0, 5, 2]  # the last feature is constant
    labels = (features[:, 0] + 0.3 * rng.normal(size=40) > 0).astype(int) + 7
    weight, bias, ids = fitted_weights(features, labels, 1.0, 1000)
    assert weight.shape == (2, 3)
    assert ids.tolist() == [7, 8]
    standard = (features - features.mean(axis=0)) / np.where(features.std(axis=0) > 0, features.std(axis=0), 1)
    reference = LogisticRegression(C=1.0, max_iter=1000).fit(standard, labels).predict_proba(standard)
    ours = torch.from_numpy(features @ weight.T + bias).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, reference, atol=1e-8)


def test_strong_regularization_wins_on_noise_and_weak_on_signal():
    rng = np.random.default_rng(2)
    labels = np.arange(200) % 2
    noise = rng.normal(size=(200, 50))
    signal = np.concatenate([noise[:, :2], 8 * labels[:, None] + noise[:, :1]], axis=1)
    settings = ProbeSettings(c_values=[1e-4, 100.0])
    assert choose_c(noise, labels, settings, 0)[0] == 1e-4
    assert choose_c(signal, labels, settings, 0)[0] == 100.0


def test_pictures_without_labels_are_refused(tmp_path, card):
    _, manifest, index, _, _ = made_task(tmp_path, card, labels=False)
    with pytest.raises(DataError, match="train"):
        train(ProbeSettings(), manifest, index, card, tmp_path / "probe")


def test_a_store_of_another_model_is_refused(tmp_path, card):
    _, _, index, _, _ = made_task(tmp_path, card)
    zeros = np.zeros((90, 5, 8), np.float32)
    other = write_store(tmp_path / "other", zeros, [-1, 0, 1, 2, 3], {"train": 60, "val": 30})
    with pytest.raises(StoreError, match="test_vit"):
        train(ProbeSettings(), other, index, card, tmp_path / "probe")


def test_bootstrap_of_two_pictures_is_the_binomial():
    weights = resampling_weights(2, 20_000, 0)
    values = ratios(np.array([0.0, 1.0]), np.ones(2), weights)
    shares = [(values == v).mean() for v in (0, 0.5, 1)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.015)
    assert interval(values) == (0.0, 1.0)


def test_bootstrap_spread_is_the_standard_error_of_the_mean():
    sample = np.random.default_rng(3).normal(size=400)
    values = ratios(sample, np.ones(400), resampling_weights(400, 4000, 1))
    error = sample.std() / 20
    assert values.std() == pytest.approx(error, rel=0.05)
    low, high = interval(values)
    assert low == pytest.approx(sample.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(sample.mean() + 1.96 * error, abs=0.2 * error)


def test_pictures_are_resampled_and_not_patches():
    """Patches of a picture that all agree carry no more than one observation."""
    changed = np.array([100.0, 0.0] * 8)
    values = ratios(changed, np.full(16, 100.0), resampling_weights(16, 4000, 0))
    assert values.std() == pytest.approx(np.sqrt(0.25 / 16), rel=0.05)


def test_undefined_ratios_are_left_out():
    assert np.isnan(ratios(np.zeros(3), np.zeros(3)))
    assert class_mean(np.array([0.2, np.nan, 0.4])) == pytest.approx(0.3)
    assert np.isnan(interval(np.array([np.nan, np.nan]))).all()


def test_accuracy_is_exact_on_a_small_table():
    found = measured_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 0)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
