"""What heads are measured by, against scikit-learn and torchmetrics, and intervals against closed forms."""

import numpy as np
import pytest
import torch
from sklearn import metrics as scikit

from visae.heads.bootstrap import estimates, grouped_sums
from visae.heads.calibration import BINS, Judged, Verdicts, verdicts
from visae.heads.metrics import Tally, confusion_table
from visae.heads.segmentation_metrics import SegmentationTally
from visae.vision.timm_import import import_timm

import_timm()  # torchmetrics imports torchvision

from torchmetrics.classification import (  # noqa: E402
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassJaccardIndex,
)

N, CLASSES = 400, 8
ONE = np.ones((1, N))


@pytest.fixture(scope="module")
def said():
    """Logits that know something of the classes, of which the last has no picture, and are too sure of it."""
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.integers(0, CLASSES - 1, N))
    logits = torch.from_numpy(3 * rng.normal(size=(N, CLASSES)))
    logits[torch.arange(N), truth] += 3
    return logits, truth


def judged(logits, truth):
    """Judge in batches of unlike size, as a store gives them."""
    cuts = [(0, 150), (150, 151), (151, len(truth))]
    return Judged((verdicts(logits[a:b], truth[a:b]) for a, b in cuts), logits.shape[1])


def test_measures_are_scikit_learns(said):
    logits, truth = said
    found = {name: value[0] for name, value in judged(*said).measures(ONE).items()}
    probabilities, labels = logits.softmax(dim=1).numpy(), truth.numpy()
    predicted = probabilities.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(scikit.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(scikit.balanced_accuracy_score(labels, predicted))
    top = scikit.top_k_accuracy_score(labels, probabilities, k=5, labels=range(CLASSES))
    assert found["top5_accuracy"] == pytest.approx(top)
    assert found["log_loss"] == pytest.approx(scikit.log_loss(labels, probabilities, labels=range(CLASSES)))
    brier = scikit.brier_score_loss(labels, probabilities, labels=range(CLASSES), scale_by_half=False)
    assert found["brier"] == pytest.approx(brier)


def test_measures_are_torchmetrics(said):
    found = {name: value[0] for name, value in judged(*said).measures(ONE).items()}
    probabilities, truth = said[0].softmax(dim=1), said[1]
    expected = {
        "accuracy": MulticlassAccuracy(CLASSES, average="micro"),
        "top5_accuracy": MulticlassAccuracy(CLASSES, top_k=5, average="micro"),
    }
    for name, metric in expected.items():
        assert found[name] == pytest.approx(float(metric(probabilities, truth)), abs=1e-6), name
    error = float(MulticlassCalibrationError(CLASSES, n_bins=BINS, norm="l1")(probabilities, truth))
    assert judged(*said).calibration_error == pytest.approx(error, abs=1e-6)
    assert error > 0.05


def test_top_5_of_five_classes_is_not_reported():
    logits = torch.eye(5)
    found = estimates(judged_all(logits, torch.arange(5)).measures, 5, 0, resamples=10)
    assert found["top5_accuracy"].named("top5_accuracy") == dict.fromkeys(
        ("top5_accuracy", "top5_accuracy_low", "top5_accuracy_high")
    )
    six = judged_all(torch.eye(6), torch.arange(6))
    assert six.measures(np.ones((1, 6)))["top5_accuracy"] == 1


def judged_all(logits, truth):
    return Judged([verdicts(logits, truth)], logits.shape[1])


def test_recall_and_reliability_are_counted_by_hand(said):
    found = judged(*said)
    recall = found.recalls(ONE)["recall"][0]
    expected = scikit.recall_score(found.found.truth, found.found.predicted, labels=range(CLASSES - 1), average=None)
    np.testing.assert_allclose(recall[:-1], expected)
    assert np.isnan(recall[-1])  # no picture has the class: not 0
    table = found.reliability(0)
    assert table["n_images"].sum() == N
    gap = (table["n_images"] * (table["accuracy"] - table["confidence"]).abs()).sum() / N
    assert gap == pytest.approx(found.calibration_error)
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["accuracy_high"]).all()


def test_the_rms_calibration_error_is_the_bins_gaps_less_the_variance_of_each(said):
    found = judged(*said)
    gaps = [(found.found.confidence - found.right)[found.bins == b] for b in range(BINS)]
    gaps = [gap for gap in gaps if len(gap) > 1]
    squares = [len(gap) * (gap.mean() ** 2 - gap.var(ddof=1) / len(gap)) for gap in gaps]
    estimate = found.rms_calibration_error(0)
    assert estimate.value == pytest.approx(np.sqrt(sum(squares) / sum(len(gap) for gap in gaps)))
    assert 0 < estimate.low < estimate.value < estimate.high
    one = judged_all(said[0][:1], said[1][:1]).rms_calibration_error(0)
    assert np.isnan([one.value, one.low, one.high]).all()  # not 0


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_the_interval_of_a_calibration_error_holds_the_true_one(gap):
    """Answers whose chance to be right is their confidence less a known gap, again and again."""
    rng = np.random.default_rng(4)
    n, repeats, held, squares = 300, 40, 0, []
    for _ in range(repeats):
        confidence = rng.uniform(0.3, 1, n)
        right = rng.random(n) < confidence - gap
        nothing = np.zeros(n)
        answers = Verdicts(nothing.astype(int), np.where(right, 0, 1), confidence, nothing, nothing, nothing)
        found = Judged([answers], 2).rms_calibration_error(0, resamples=200)
        assert found.low <= found.value <= found.high
        held += found.low <= gap <= found.high
        squares.append(found.value**2)
    assert held >= 36
    # Three standard errors of this mean; without taking chance away it would be 0.007 too large.
    assert np.mean(squares) == pytest.approx(gap**2, abs=0.003)


def test_certainty_falls_in_the_last_bin():
    found = judged_all(torch.tensor([[0.0, 1000.0]]), torch.tensor([1]))
    assert found.bins.tolist() == [BINS - 1]


def test_intervals_of_an_accuracy_are_the_binomials(said):
    found = estimates(judged(*said).measures, N, 0, resamples=4000)["accuracy"]
    error = np.sqrt(found.value * (1 - found.value) / N)
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.2 * error)


def test_pieces_of_resamples_give_what_one_piece_gives(said, monkeypatch):
    whole = estimates(judged(*said).measures, N, 3, resamples=50)
    monkeypatch.setattr("visae.heads.bootstrap._MOST_WEIGHTS", 7 * N)
    pieces = estimates(judged(*said).measures, N, 3, resamples=50)
    for name, found in whole.items():
        np.testing.assert_allclose(found, pieces[name], rtol=1e-12)


def test_sums_of_groups_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    weights, values, groups = rng.random((3, 20)), rng.random(20), rng.integers(0, 4, 20) * 2
    found = grouped_sums(weights, values, groups, 9)
    expected = [[(w * values)[groups == group].sum() for group in range(9)] for w in weights]
    np.testing.assert_allclose(found, expected)


@pytest.fixture(scope="module")
def segmented():
    """Logits of six pictures of 4 x 4 patches, pixels twice as fine; class 4 is predicted and never labelled."""
    rng = np.random.default_rng(2)
    pixels = torch.from_numpy(rng.integers(-1, 4, (6, 8, 8)).astype(np.int16))
    patches = pixels[:, ::2, ::2].flatten(1)
    logits = torch.from_numpy(rng.normal(size=(6, 5, 4, 4))).float()
    logits.scatter_add_(1, patches.view(6, 1, 4, 4).clamp(min=0).long(), torch.full((6, 1, 4, 4), 1.5))
    tally = SegmentationTally([{"id": i + 1, "name": f"class {i + 1}"} for i in range(5)])
    tally.add(logits[:4], patches[:4], pixels[:4])
    tally.add(logits[4:], patches[4:], pixels[4:])
    return tally, logits, patches, pixels


def test_iou_of_patches_and_pixels_is_torchmetrics(segmented):
    tally, logits, patches, pixels = segmented
    fine = torch.nn.functional.interpolate(logits, (8, 8), mode="bilinear").argmax(dim=1)
    found, tables = tally.metrics(0), tally.tables(0)
    levels = {"patch": (logits.argmax(dim=1).flatten(1), patches), "pixel": (fine, pixels)}
    for level, (predicted, truth) in levels.items():
        settings = {"num_classes": 5, "ignore_index": -1}
        each = MulticlassJaccardIndex(average="none", **settings)(predicted, truth.long())[:4]
        iou = tables["classes"].filter(level=level)["iou"]
        np.testing.assert_allclose(iou[:4].to_numpy(), each.numpy(), atol=1e-6)
        assert iou[4] is None
        assert found[f"{level}_miou"] == pytest.approx(float(each.mean()), abs=1e-6)
        right = MulticlassAccuracy(average="micro", **settings)(predicted, truth.long())
        assert found[f"{level}_accuracy"] == pytest.approx(float(right), abs=1e-6)
        assert found[f"{level}_miou_low"] < found[f"{level}_miou"] < found[f"{level}_miou_high"]
    assert found["class_iou"]["class 5"] is None
    confusion = tables["confusion"].filter(level="pixel")
    known = (pixels >= 0).flatten()
    expected = scikit.confusion_matrix(pixels.flatten()[known], fine.flatten()[known], labels=range(5))
    for row in confusion.iter_rows(named=True):
        assert expected[row["label_id"] - 1, row["predicted_id"] - 1] == row["n"]
    assert confusion["n"].sum() == known.sum()


def test_a_class_that_a_resample_misses_is_left_out_of_its_mean():
    tally = Tally(2)
    tally.add(torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 0], [0, 1]]))
    found = tally.measures(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(found["class_iou"], [[2 / 3, 0.5], [1, np.nan], [np.nan, 0.5]])
    np.testing.assert_allclose(found["miou"], [7 / 12, 1, 0.5])
    np.testing.assert_allclose(found["accuracy"], [0.75, 1, 0.5])


def test_every_class_stands_in_the_confusion_table():
    classes = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
    table = confusion_table(np.array([[0, 2], [0, 0]]), classes)
    assert table.rows() == [(3, "a", 3, "a", 0), (3, "a", 7, "b", 2), (7, "b", 7, "b", 0)]
