"""The segmentation head: metrics against scikit-learn, and a task that it has to learn."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from visae.activations.given import write_store
from visae.config.settings import ModelSettings, SegmentationHeadSettings
from visae.data.patch_labels import write_patch_labels
from visae.errors import DataError
from visae.heads import metrics
from visae.heads.segmentation import SegmentationHead, channels, load_segmentation_head, train_segmentation_head
from visae.vision.model import load_model, prepare_model

NAMES = {1: "sky", 2: "road", 3: "car", 9: "boat"}  # no picture has a boat


def test_confusion_matrix_and_iou_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 5, 500), rng.integers(0, 6, 500)
    labels[labels == 2] = 3  # class 2 is predicted and never labelled, class 5 likewise
    found = metrics.confusion_matrix(torch.from_numpy(labels), torch.from_numpy(predictions), 6)
    np.testing.assert_array_equal(found.numpy(), confusion_matrix(labels, predictions, labels=range(6)))
    iou = metrics.class_iou(found)
    present = [0, 1, 3, 4]
    expected = jaccard_score(labels, predictions, labels=present, average=None)
    np.testing.assert_allclose(iou[present].numpy(), expected)
    assert iou[[2, 5]].isnan().all()
    assert metrics.mean_iou(found) == pytest.approx(expected.mean())
    assert metrics.accuracy(found) == pytest.approx(accuracy_score(labels, predictions))


def test_unlabelled_elements_do_not_count():
    labels = torch.tensor([[0, -1], [1, -1]], dtype=torch.int16)
    found = metrics.confusion_matrix(labels, torch.tensor([[0, 1], [1, 0]]), 2)
    assert found.tolist() == [[1, 0], [0, 1]]


def test_ids_become_channels():
    assert channels(np.array([[0, 1], [9, 77]]), [1, 3, 9]).tolist() == [[-1, 0], [2, -1]]


def test_logits_lie_where_their_patch_lies():
    head = SegmentationHead(torch.eye(2), torch.zeros(2), n_prefix=1, grid=(2, 3))
    tokens = torch.cat([torch.full((1, 1, 2), 99.0), torch.arange(12.0).view(1, 6, 2)], dim=1)
    logits = head(tokens)
    assert logits.shape == (1, 2, 2, 3)
    assert logits[0, 0].tolist() == [[0, 2, 4], [6, 8, 10]]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Pictures of 4 x 4 patches whose tokens carry the class that their mask has."""
    folder = tmp_path_factory.mktemp("task")
    settings = ModelSettings(architecture="test_vit", weights="random", image_size=64)
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
    card = load_model(folder / "model.json").card
    rng = np.random.default_rng(0)
    n, n_fit = 24, 16
    ids = rng.choice([0, 1, 2, 3], size=(n, 4, 4), p=[0.1, 0.4, 0.3, 0.2])
    centres = rng.normal(size=(4, card.layers[0].d_model))
    tokens = rng.normal(size=(n, 17, card.layers[0].d_model)) * 0.5
    tokens[:, 1:] += centres[ids.reshape(n, 16)]
    for i, grid in enumerate(ids):
        Image.fromarray(np.kron(grid, np.ones((16, 16))).astype(np.uint8)).save(folder / f"mask-{i}.png")
    manifest = write_store(
        folder / "store", tokens.astype(np.float32), card.tokens(0), {"train": n_fit, "val": n - n_fit}
    )
    pl.DataFrame(
        {
            "image_id": pl.Series(range(n), dtype=pl.Int32),
            "path": [f"{i}.png" for i in range(n)],
            "split": ["train"] * n_fit + ["val"] * (n - n_fit),
            "label": pl.Series([None] * n, dtype=pl.Int32),
            "label_name": pl.Series([None] * n, dtype=pl.String),
            "mask_path": [str(folder / f"mask-{i}.png") for i in range(n)],
            "width": pl.Series([64] * n, dtype=pl.Int32),
            "height": pl.Series([64] * n, dtype=pl.Int32),
            "sha256": ["0"] * n,
        }
    ).write_parquet(folder / "index.parquet")
    summary = {"kind": "segmentation_folder", "classes": [{"id": i, "name": name} for i, name in NAMES.items()]}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_patch_labels(folder / "index.parquet", folder / "model.json", 0, folder / "patch_labels.parquet")
    return folder, manifest, ids


def train(folder, settings, index, output):
    return train_segmentation_head(
        settings,
        manifest=folder / "store/manifest.json",
        index_path=index,
        patch_labels=folder / "patch_labels.parquet",
        card_path=folder / "model.json",
        output=output,
        fit_split="train",
        measure_split="val",
        device="cpu",
        seed=0,
    )


def trained(task, output, **options):
    settings = SegmentationHeadSettings(learning_rate=0.03, batch_size=4, **options)
    return train(task[0], settings, task[0] / "index.parquet", output)


def test_a_learnable_task_is_learned_and_measured_without_the_unlabelled(task, tmp_path):
    folder, manifest, ids = task
    found = trained(task, tmp_path)
    assert found["patch_miou"] > 0.95
    assert found["n_images"] == 8
    assert found["class_iou"]["boat"] is None
    assert set(found["class_iou"]) == set(NAMES.values())
    assert json.loads((tmp_path / "metrics.json").read_text()) == found

    # The file on disk, read again, gives the published numbers by another implementation.
    head, model = load_segmentation_head(tmp_path / "metrics.json"), load_model(folder / "model.json")
    from visae.activations.store import ActivationStore

    tokens = ActivationStore.open(manifest).read(range(16, 24), kinds="all")
    logits = head(model.final_norm(tokens))
    class_ids = np.array([c["id"] for c in head.classes])
    patches, truth = class_ids[logits.argmax(dim=1).numpy()].ravel(), ids[16:].ravel()
    known = truth != 0
    expected = jaccard_score(truth[known], patches[known], labels=[1, 2, 3], average="macro")
    assert found["patch_miou"] == pytest.approx(expected)
    fine = torch.nn.functional.interpolate(logits, 64, mode="bilinear").argmax(dim=1).numpy()
    pixels, pixel_truth = class_ids[fine].ravel(), np.kron(ids[16:], np.ones((1, 16, 16), int)).ravel()
    known = pixel_truth != 0
    assert found["pixel_accuracy"] == pytest.approx((pixels == pixel_truth)[known].mean())
    iou = jaccard_score(pixel_truth[known], pixels[known], labels=[1, 2, 3], average=None)
    assert [found["class_iou"][NAMES[i]] for i in (1, 2, 3)] == pytest.approx(iou.tolist())
    assert found["pixel_miou"] == pytest.approx(iou.mean())


def test_training_repeats_to_the_bit(task, tmp_path):
    for name in ("a", "b"):
        trained(task, tmp_path / name, epochs=2)
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
    trained(task, tmp_path / "c", epochs=2, seed=1)
    assert (tmp_path / "c/weights.safetensors").read_bytes() != first


def test_a_split_without_masks_is_refused(task, tmp_path):
    folder, _, _ = task
    index = pl.read_parquet(folder / "index.parquet").with_columns(mask_path=pl.lit(None, dtype=pl.String))
    (tmp_path / "summary.json").write_text((folder / "summary.json").read_text())
    index.write_parquet(tmp_path / "index.parquet")
    with pytest.raises(DataError, match="train"):
        train(folder, SegmentationHeadSettings(), tmp_path / "index.parquet", tmp_path / "head")
