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
from visae.errors import DataError, ModelError, StoreError
from visae.heads.bootstrap import class_mean
from visae.heads.files import HeadFiles
from visae.heads.probe import load_probe, pooled, train_probe
from visae.intervals import interval, ratios, resampling_weights
from visae.vision.model import ModelCard, load_model, prepare_model

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
    splits, last = {"train": n_fit, "val": n_measure}, model.card.depth - 1
    manifest = write_store(folder, tokens.astype(np.float32), model.card.tokens(0), splits, layer=last)
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
    files = HeadFiles(manifest=manifest, index_path=index, card_path=card)
    return train_probe(settings, files, output, **splits, device="cpu", seed=0)


def test_probe_predicts_as_scikit_learn_does(tmp_path, card):
    model, manifest, index, tokens, labels = made_task(tmp_path, card)
    metrics = train(ProbeSettings(c_values=[0.1]), manifest, index, card, tmp_path / "probe")
    final = model.final_norm(torch.from_numpy(tokens).float())
    features = np.concatenate([final[:, 0].numpy(), final[:, 1:].mean(dim=1).numpy()], axis=1).astype(np.float64)
    mean, std = features[:60].mean(axis=0), features[:60].std(axis=0)
    reference = LogisticRegression(C=0.1, max_iter=1000).fit((features[:60] - mean) / std, labels[:60])

    probe = load_probe(tmp_path / "probe/metrics.json", ModelCard.read(card))
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
    probe = load_probe(tmp_path / "probe/metrics.json", ModelCard.read(card))
    few = torch.from_numpy(tokens[:2]).float().requires_grad_()
    probe(model.final_norm(few))[:, 0].sum().backward()
    assert few.grad is not None
    assert few.grad.abs().amin(dim=(0, 2)).shape == (17,)
    assert (few.grad.abs().sum(dim=2) > 0).all()


def test_pooling_reads_what_it_says():
    tokens = torch.arange(24.0).view(1, 4, 6)
    torch.testing.assert_close(pooled(tokens, 0, "mean"), tokens.mean(dim=1))
    torch.testing.assert_close(pooled(tokens, 2, "class_token"), tokens[:, 0])
    with_register = pooled(tokens, 2, "both")  # [CLS], one register, two patches
    torch.testing.assert_close(with_register, torch.cat([tokens[:, 0], tokens[:, 2:].mean(dim=1)], dim=1))


@pytest.mark.parametrize("pooling", ["class_token", "mean", "both"])
@pytest.mark.parametrize("solver", ["scikit-learn", "torch"])
def test_every_pooling_and_solver_learns_and_is_read_back(tmp_path, card, pooling, solver, monkeypatch):
    monkeypatch.setattr("visae.heads.probe.MOST_BYTES", 0)  # features lie in a file
    model, manifest, index, tokens, labels = made_task(tmp_path, card)
    settings = ProbeSettings(c_values=[0.1, 1.0], pooling=pooling, solver=solver)
    metrics = train(settings, manifest, index, card, tmp_path / "probe")
    assert (metrics["solver"], metrics["pooling"]) == (solver, pooling)
    assert set(metrics["held_out_log_loss"]) == {"0.1", "1"}
    probe = load_probe(tmp_path / "probe/metrics.json", ModelCard.read(card))
    with torch.no_grad():
        said = probe(model.final_norm(torch.from_numpy(tokens[60:]).float())).argmax(dim=1)
    right = np.array([c["id"] for c in probe.classes])[said] == labels[60:]
    assert metrics["accuracy"] == pytest.approx(right.mean())
    assert metrics["accuracy"] > 0.6
    kept = {path.name for path in (tmp_path / "probe").iterdir()}
    tables = {"classes.parquet", "confusion.parquet", "reliability.parquet"}
    assert kept == {"metrics.json", "weights.safetensors", *tables}  # the file of features is gone


def test_tables_are_of_the_published_probe(tmp_path, card):
    _, manifest, index, _, _ = made_task(tmp_path, card)
    metrics = train(ProbeSettings(c_values=[0.1]), manifest, index, card, tmp_path / "probe")
    classes = pl.read_parquet(tmp_path / "probe/classes.parquet")
    assert classes["class_name"].to_list() == ["class 5", "class 6", "class 7"]
    assert classes["n_fit"].to_list() == [20, 20, 20]
    assert classes["n_measure"].to_list() == [10, 10, 10]
    assert classes["recall"].mean() == pytest.approx(metrics["balanced_accuracy"])
    confusion = pl.read_parquet(tmp_path / "probe/confusion.parquet")
    right = confusion.filter(pl.col("label_id") == pl.col("predicted_id"))
    assert right["n"].sum() / confusion["n"].sum() == pytest.approx(metrics["accuracy"])
    assert metrics["top5_accuracy"] is None  # of three classes
    low, error, high = (metrics[f"rms_calibration_error{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low <= error <= high <= 1
    assert 0 <= metrics["calibration_error"] <= 1


def relabelled(index, labels):
    """Give the pictures other labels; ids without a name get one."""
    frame = pl.read_parquet(index)
    frame.with_columns(label=pl.Series(labels, dtype=pl.Int32)).write_parquet(index)
    names = [{"id": int(i), "name": f"class {i}"} for i in sorted({i for i in labels if i is not None})]
    index.with_name("summary.json").write_text(json.dumps({"kind": "image_folder", "classes": names}))


def test_classes_that_were_not_learned_are_reported_and_not_judged(tmp_path, card, caplog):
    _, manifest, index, _, labels = made_task(tmp_path, card)
    others = train(ProbeSettings(c_values=[0.1]), manifest, index, card, tmp_path / "whole")
    changed = labels.tolist()
    changed[60:62] = [9, 9]
    relabelled(index, changed)
    found = train(ProbeSettings(c_values=[0.1]), manifest, index, card, tmp_path / "probe")
    assert found["not_learned"] == [{"id": 9, "name": "class 9", "n_images": 2}]
    assert "class class 9 has no picture to learn from: 2 pictures" in caplog.text
    assert (found["n_measure"], others["n_measure"]) == (28, 30)
    assert [c["id"] for c in found["classes"]] == [5, 6, 7]
    assert 28 * found["accuracy"] == pytest.approx(round(28 * found["accuracy"]))
    relabelled(index, [*changed[:60], *[9] * 30])
    with pytest.raises(DataError, match=r"no picture of split 'val' has a label that split 'train' has too"):
        train(ProbeSettings(), manifest, index, card, tmp_path / "probe")


def test_a_class_with_one_picture_is_learned_and_one_without_pictures_has_no_recall(tmp_path, card):
    _, manifest, index, _, labels = made_task(tmp_path, card)
    changed = labels.tolist()
    changed[0] = 9  # in train alone
    relabelled(index, changed)
    found = train(ProbeSettings(c_values=[0.1, 1.0]), manifest, index, card, tmp_path / "probe")
    assert found["classes"][-1] == {"id": 9, "name": "class 9"}
    last = pl.read_parquet(tmp_path / "probe/classes.parquet").row(-1, named=True)
    assert (last["n_fit"], last["n_measure"], last["recall"], last["recall_low"]) == (1, 0, None, None)
    assert found["balanced_accuracy"] is not None


def test_a_split_of_one_class_is_refused(tmp_path, card):
    _, manifest, index, _, labels = made_task(tmp_path, card)
    relabelled(index, [*[5] * 60, *labels.tolist()[60:]])
    with pytest.raises(DataError, match=r"split 'train' needs labelled pictures of two classes"):
        train(ProbeSettings(), manifest, index, card, tmp_path / "probe")


def test_a_class_token_that_the_model_has_not_is_refused(tmp_path):
    settings = ModelSettings(architecture="test_convnext", weights="random", image_size=64)
    prepare_model(settings, tmp_path / "weights.safetensors", tmp_path / "model.json")
    _, manifest, index, _, _ = made_task(tmp_path, tmp_path / "model.json")
    with pytest.raises(ModelError, match=r"pooling: class_token: test_convnext has no \[CLS\] token"):
        train(ProbeSettings(pooling="class_token"), manifest, index, tmp_path / "model.json", tmp_path / "probe")


def test_pictures_without_labels_are_refused(tmp_path, card):
    _, manifest, index, _, _ = made_task(tmp_path, card, labels=False)
    with pytest.raises(DataError, match="train"):
        train(ProbeSettings(), manifest, index, card, tmp_path / "probe")


def test_a_store_of_another_model_is_refused(tmp_path, card):
    _, _, index, _, _ = made_task(tmp_path, card)
    zeros = np.zeros((90, 5, 8), np.float32)
    splits = {"train": 60, "val": 30}
    other = write_store(tmp_path / "other", zeros, [-1, 0, 1, 2, 3], splits, layer=5)
    with pytest.raises(StoreError, match="5 tokens of 8 values a picture, but test_vit"):
        train(ProbeSettings(), other, index, card, tmp_path / "probe")
    earlier = write_store(tmp_path / "earlier", zeros, [-1, 0, 1, 2, 3], splits, layer=4)
    with pytest.raises(StoreError, match=r"earlier/manifest.json: tokens of layer 4, .* \(studies: head_layer: 5\)"):
        train(ProbeSettings(), earlier, index, card, tmp_path / "probe")


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
