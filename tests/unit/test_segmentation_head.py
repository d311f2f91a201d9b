"""The segmentation head: metrics against scikit-learn, and a task that it has to learn."""

import json
from itertools import product
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.config.settings import ModelSettings, SegmentationHeadSettings
from visae.data.patch_labels import write_patch_labels
from visae.errors import DataError
from visae.heads import metrics
from visae.heads.files import SegmentationFiles
from visae.heads.masks import Masks, channels, patch_channels
from visae.heads.segmentation import train_segmentation_head
from visae.heads.segmentation_head import SegmentationHead, load_segmentation_head, new_head
from visae.heads.training_tokens import TrainingTokens
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
    splits, last = {"train": n_fit, "val": n - n_fit}, card.depth - 1
    manifest = write_store(folder / "store", tokens.astype(np.float32), card.tokens(0), splits, layer=last)
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
    files = SegmentationFiles(
        manifest=folder / "store/manifest.json",
        index_path=index,
        patch_labels=folder / "patch_labels.parquet",
        card_path=folder / "model.json",
    )
    return train_segmentation_head(
        settings, files, output, fit_split="train", measure_split="val", device="cpu", seed=0
    )


def trained(task, output, **options):
    options = {"learning_rates": [0.03], "weight_decays": [0.001], **options}
    settings = SegmentationHeadSettings(batch_size=4, **options)
    return train(task[0], settings, task[0] / "index.parquet", output)


def test_a_learnable_task_is_learned_and_measured_without_the_unlabelled(task, tmp_path):
    folder, manifest, ids = task
    found = trained(task, tmp_path)
    assert found["patch_miou"] > 0.95
    assert found["n_images"] == 8
    assert found["class_iou"]["boat"] is None
    assert found["not_learned"] == [{"id": 9, "name": "boat"}]
    assert set(found["class_iou"]) == set(NAMES.values())
    assert json.loads((tmp_path / "metrics.json").read_text()) == found

    # The file on disk, read again, gives the published numbers by another implementation.
    model = load_model(folder / "model.json")
    head = load_segmentation_head(tmp_path / "metrics.json", model.card)
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


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_heads_with_a_hidden_layer_learn_and_are_read_back(task, tmp_path, kind):
    folder, manifest, ids = task
    found = trained(task, tmp_path, kind=kind, hidden=32, learning_rates=[0.01])
    assert found["kind"] == kind
    assert found["patch_miou"] > 0.9
    model = load_model(folder / "model.json")
    head = load_segmentation_head(tmp_path / "metrics.json", model.card)
    assert head.d_model == model.card.d_final
    tokens = ActivationStore.open(manifest).read(range(16, 24), kinds="all")
    patches = np.array([c["id"] for c in head.classes])[head(model.final_norm(tokens)).argmax(dim=1).numpy()]
    known = ids[16:] != 0
    assert found["patch_accuracy"] == pytest.approx((patches == ids[16:])[known].mean())


def test_a_conv_head_sees_the_neighbours_of_a_patch():
    settings = SegmentationHeadSettings(kind="conv", hidden=4)
    card = SimpleNamespace(d_final=3, n_prefix=1, grid=(5, 6))
    head = new_head(settings, card, 2, seed=0)
    torch.nn.init.ones_(head.weight)
    tokens = torch.zeros(1, 31, 3)
    before = head(tokens)
    tokens[0, 1 + 2 * 6 + 3] = 1.0  # row 2, column 3
    changed = (head(tokens) != before)[0, 0]
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[1:4, 2:5] = True
    assert torch.equal(changed, expected)


def test_a_sweep_takes_the_best_on_held_out_pictures_and_gives_what_that_member_alone_gives(task, tmp_path):
    rates, decays = [30.0, 0.03], [1e-3, 20.0]
    swept = trained(task, tmp_path / "swept", learning_rates=rates, weight_decays=decays, epochs=4)
    miou = {(entry["learning_rate"], entry["weight_decay"]): entry["miou"] for entry in swept["held_out"]}
    assert set(miou) == set(product(rates, decays))
    assert len(set(miou.values())) > 1
    assert miou[swept["learning_rate"], swept["weight_decay"]] == max(miou.values())
    best = {"learning_rates": [swept["learning_rate"]], "weight_decays": [swept["weight_decay"]]}
    trained(task, tmp_path / "alone", epochs=4, **best)
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("swept", "alone")]
    assert weights[0] == weights[1]


def test_members_of_a_sweep_do_not_depend_on_one_another(task, tmp_path):
    """Held-out scores of a member are the same in whatever sweep it is."""
    found = [
        trained(task, tmp_path / str(n), learning_rates=rates, epochs=2)["held_out"]
        for n, rates in enumerate(([0.003, 0.01], [0.01, 0.03]))
    ]
    assert found[0][1] == found[1][0]


def test_tokens_that_do_not_fit_memory_are_read_in_every_epoch(task, tmp_path):
    folder, manifest, _ = task
    model = load_model(folder / "model.json")
    store = ActivationStore.open(manifest)
    masks = Masks(folder / "index.parquet", model.card, list(NAMES))
    images = [*range(1, 16)]
    held = TrainingTokens(store, masks, images, (16, 16), 1e9)
    read = TrainingTokens(store, masks, images, (16, 16), 4 * 17 * model.card.d_final * 4)
    rows = torch.arange(2, 15)
    for data in (held, read):
        batches = list(data.epoch(rows, 4, torch.Generator().manual_seed(0)))
        assert [len(tokens) for tokens, _ in batches] == [4, 4, 4, 1]
        seen = torch.cat([tokens for tokens, _ in batches])
        expected = store.read(range(3, 16), kinds="all")
        order = [int((expected == tokens).flatten(1).all(dim=1).nonzero()) for tokens in seen]
        assert sorted(order) == [*range(13)]
        assert order != sorted(order)
        assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels[2:][order])
    found = trained(task, tmp_path, memory_gb=1e-6)
    assert found["patch_miou"] > 0.95


def test_a_mask_of_another_size_is_refused(task, tmp_path):
    folder, _, _ = task
    index = pl.read_parquet(folder / "index.parquet")
    Image.new("L", (32, 64), 1).save(tmp_path / "wrong.png")
    wrong = pl.when(pl.col("image_id") == 3).then(pl.lit(str(tmp_path / "wrong.png"))).otherwise("mask_path")
    index.with_columns(mask_path=wrong).write_parquet(tmp_path / "index.parquet")
    (tmp_path / "summary.json").write_text((folder / "summary.json").read_text())
    with pytest.raises(DataError, match=r"wrong.png: the mask has 32 x 64 pixels, its picture 64 x 64"):
        train(folder, SegmentationHeadSettings(), tmp_path / "index.parquet", tmp_path / "head")


def test_patch_labels_of_another_grid_are_refused(task):
    labels = task[0] / "patch_labels.parquet"
    with pytest.raises(DataError, match=r"patch_labels.parquet: 16 patches of picture 0, but the head reads 3 x 3"):
        patch_channels(labels, list(NAMES), (3, 3))


def test_a_class_that_is_only_measured_is_not_judged(task, tmp_path, caplog):
    """Its pixels are not counted as wrong: nothing was there to learn it from."""
    folder, _, ids = task
    index = pl.read_parquet(folder / "index.parquet")
    (tmp_path / "summary.json").write_text((folder / "summary.json").read_text())
    for i, grid in enumerate(ids[:16]):
        without = np.where(grid == 2, 0, grid)
        Image.fromarray(np.kron(without, np.ones((16, 16))).astype(np.uint8)).save(tmp_path / f"mask-{i}.png")
    masks = [*(str(tmp_path / f"mask-{i}.png") for i in range(16)), *index["mask_path"][16:]]
    index.with_columns(mask_path=pl.Series(masks)).write_parquet(tmp_path / "index.parquet")
    settings = SegmentationHeadSettings(batch_size=4, learning_rates=[0.03], weight_decays=[0.001])
    found = train(folder, settings, tmp_path / "index.parquet", tmp_path / "head")
    assert found["not_learned"] == [{"id": 2, "name": "road"}, {"id": 9, "name": "boat"}]
    assert "class road is in no mask of split train" in caplog.text
    assert [c["id"] for c in found["classes"]] == [1, 3]
    assert found["class_iou"]["road"] is None
    assert min(found["class_iou"]["sky"], found["class_iou"]["car"], found["patch_miou"]) > 0.9
    assert set(pl.read_parquet(tmp_path / "head/classes.parquet")["class_name"]) == {"sky", "car"}
    for i in range(16):
        Image.new("L", (64, 64)).save(tmp_path / f"mask-{i}.png")
    with pytest.raises(DataError, match="no pixel of split 'train' is labelled"):
        train(folder, settings, tmp_path / "index.parquet", tmp_path / "head")


def test_one_picture_cannot_be_swept(task, tmp_path):
    folder, _, _ = task
    index = pl.read_parquet(folder / "index.parquet")
    alone = pl.when(pl.col("image_id") == 0).then("mask_path")
    index.with_columns(mask_path=alone).write_parquet(tmp_path / "index.parquet")
    (tmp_path / "summary.json").write_text((folder / "summary.json").read_text())
    with pytest.raises(DataError, match="give one value of each"):
        train(
            folder, SegmentationHeadSettings(learning_rates=[0.1, 0.2]), tmp_path / "index.parquet", tmp_path / "head"
        )


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
