"""What replacing a layer's patches costs the heads: against runs by hand, and SAEs that keep everything or nothing."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.config.settings import (
    FaithfulnessSettings,
    ModelSettings,
    ProbeSettings,
    RandomSettings,
    SegmentationHeadSettings,
)
from visae.data.patch_labels import write_patch_labels
from visae.errors import DataError, ModelError, StoreError
from visae.experiments.faithfulness import REPLACEMENTS, mean_tokens, measure_faithfulness
from visae.heads.files import HeadFiles, SegmentationFiles
from visae.heads.probe import load_probe, train_probe
from visae.heads.segmentation import train_segmentation_head
from visae.heads.segmentation_head import load_segmentation_head
from visae.sae import SparseAutoencoder, load_sae, save_sae
from visae.sae.variants.baselines import Random
from visae.sae.variants.relu import Relu
from visae.tasks.files import TaskFiles
from visae.vision.model import load_model, prepare_model

N_FIT, N_MEASURE, LAST, MIDDLE = 30, 18, 5, 4
NAMES = [{"id": i, "name": name} for i, name in enumerate(("sky", "road", "car"), start=1)]
SETTINGS = FaithfulnessSettings(batch_size=7, bootstrap=100)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Pictures whose patches carry the class of their mask, mostly the picture's own; a probe and a head learn them."""
    folder = tmp_path_factory.mktemp("task")
    prepare_model(
        ModelSettings(architecture="test_vit", weights="random", image_size=64),
        folder / "weights.safetensors",
        folder / "model.json",
    )
    model = load_model(folder / "model.json")
    rng = np.random.default_rng(0)
    n, d = N_FIT + N_MEASURE, model.card.layers[0].d_model
    labels = np.arange(n) % 3 + 1
    ids = np.where(rng.random((n, 4, 4)) < 0.7, labels[:, None, None], rng.integers(0, 4, (n, 4, 4)))
    centres = rng.normal(size=(4, d))
    tokens = 0.5 * rng.normal(size=(n, 17, d)) + 1
    tokens[:, 1:] += centres[ids.reshape(n, 16)]
    for i, grid in enumerate(ids):
        Image.fromarray(np.kron(grid, np.ones((16, 16))).astype(np.uint8)).save(folder / f"mask-{i}.png")
    splits = {"train": N_FIT, "val": N_MEASURE}
    manifests = {
        layer: write_store(
            folder / f"store{layer}", tokens.astype(np.float32), model.card.tokens(0), splits, layer=layer
        )
        for layer in (MIDDLE, LAST)
    }
    pl.DataFrame(
        {
            "image_id": pl.Series(range(n), dtype=pl.Int32),
            "path": [f"{i}.png" for i in range(n)],
            "split": ["train"] * N_FIT + ["val"] * N_MEASURE,
            "label": pl.Series(labels, dtype=pl.Int32),
            "label_name": [NAMES[i - 1]["name"] for i in labels],
            "mask_path": [str(folder / f"mask-{i}.png") for i in range(n)],
            "width": pl.Series([64] * n, dtype=pl.Int32),
            "height": pl.Series([64] * n, dtype=pl.Int32),
            "sha256": ["0"] * n,
        }
    ).write_parquet(folder / "index.parquet")
    (folder / "summary.json").write_text(json.dumps({"kind": "scenes", "classes": NAMES}))
    write_patch_labels(folder / "index.parquet", folder / "model.json", 0, folder / "patch_labels.parquet")
    shared = {"manifest": manifests[LAST], "index_path": folder / "index.parquet", "card_path": folder / "model.json"}
    for pooling in ("mean", "class_token"):
        settings = ProbeSettings(pooling=pooling, c_values=[1.0])
        train_probe(settings, HeadFiles(**shared), folder / f"probe-{pooling}", device="cpu")
    head = SegmentationHeadSettings(batch_size=4, epochs=4, learning_rates=[0.03], weight_decays=[0.001])
    labels_path = folder / "patch_labels.parquet"
    files = SegmentationFiles(**shared, patch_labels=labels_path)
    train_segmentation_head(head, files, folder / "head", device="cpu")
    return SimpleNamespace(folder=folder, manifests=manifests, model=model, labels=labels, ids=ids, d=d)


def kept(task, name):
    """SAE that keeps everything, nothing but the mean patch, or something: a baseline of four random directions."""
    store = ActivationStore.open(task.manifests[LAST])
    if name == "something":
        rows = store.read(range(N_FIT), "patches").flatten(0, 1)
        sae = SparseAutoencoder(task.d, 4, Random(1))
        sae.mean.copy_(rows.mean(dim=0))
        settings = RandomSettings(variant="random", k=1)
        with torch.no_grad():
            sae.variant.fit(sae.weights, sae.normalized(rows), settings, 0)
        return save_sae(sae, task.folder / name)
    both = torch.cat([torch.eye(task.d), -torch.eye(task.d)])
    sae = SparseAutoencoder(task.d, 2 * task.d, Relu())
    state = sae.state_dict() | {"encoder_weight": both, "decoder_weight": both.clone(), "scale": torch.tensor(1.0)}
    if name == "nothing":
        state |= {"encoder_bias": torch.full((2 * task.d,), -1e6)}
        state |= {"mean": mean_tokens(store, store.image_ids("train"), N_FIT, "patches")[0]}
    sae.load_state_dict({key: value.clone() for key, value in state.items()})
    return save_sae(sae, task.folder / name)


def files_of(task, *tasks, probe="mean", layer=LAST, **others):
    f = task.folder
    shared = {"manifest": task.manifests[layer], "index": f / "index.parquet", "card": f / "model.json"}
    own = {
        "classification": {"readout": f / f"probe-{probe}/metrics.json"},
        "segmentation": {"readout": f / "head/metrics.json", "labels": f / "patch_labels.parquet"},
    }
    found = {name: {**shared, **own[name], **others} for name in tasks}
    return {name: TaskFiles(**{key: str(path) for key, path in paths.items()}) for name, paths in found.items()}


def measured(task, sae_config, output, files=None, layer=LAST, settings=SETTINGS):
    files = files_of(task, "classification", "segmentation", layer=layer) if files is None else files
    found = measure_faithfulness(files, str(sae_config), settings, layer, output, device="cpu")
    assert json.loads((output / "faithfulness.json").read_text()) == found
    return found


def by_hand(task, sae_config, layer):
    """Accuracy and patch mIoU under each replacement, by plain loops over whole pictures."""
    store, sae = ActivationStore.open(task.manifests[LAST]), load_sae(sae_config)
    tokens = store.read(range(N_FIT, N_FIT + N_MEASURE), "all")
    patches = tokens[:, 1:]
    instead = {
        "as_is": patches,
        "reconstruction": sae(patches.flatten(0, 1)).view_as(patches),
        "mean": store.read(range(N_FIT), "patches").mean(dim=(0, 1)).expand_as(patches),
        "zero": torch.zeros_like(patches),
    }
    probe = load_probe(task.folder / "probe-mean/metrics.json", task.model.card)
    head = load_segmentation_head(task.folder / "head/metrics.json", task.model.card)
    truth, labels = task.ids[N_FIT:].ravel(), task.labels[N_FIT:]
    found = {}
    for name, values in instead.items():
        with torch.no_grad():
            final = task.model.resume(torch.cat([tokens[:, :1], values], dim=1), layer)
            said = head(final).argmax(dim=1).flatten().numpy() + 1
            classes = probe(final).argmax(dim=1).numpy() + 1
        known = truth != 0
        miou = jaccard_score(truth[known], said[known], labels=[1, 2, 3], average="macro")
        found[name] = {"accuracy": accuracy_score(labels, classes), "patch_miou": miou}
    return found


@pytest.mark.parametrize("layer", [MIDDLE, LAST])
def test_measures_are_those_of_whole_forward_passes(task, tmp_path, layer):
    config = kept(task, "something")
    found, expected = measured(task, config, tmp_path, layer=layer)["measures"], by_hand(task, config, layer)
    for name in REPLACEMENTS:
        for measure, value in expected[name].items():
            assert found[measure][name]["value"] == pytest.approx(value), (measure, name)
    miou = {name: expected[name]["patch_miou"] for name in REPLACEMENTS}
    share = (miou["reconstruction"] - miou["zero"]) / (miou["as_is"] - miou["zero"])
    recovered = found["patch_miou"]["recovered_from_zero"]
    assert recovered["value"] == pytest.approx(share)
    assert recovered["low"] <= recovered["value"] <= recovered["high"]
    if layer == LAST:  # nothing lies between the heads and what is replaced
        assert share < 1
        metrics = json.loads((task.folder / "head/metrics.json").read_text())
        assert found["pixel_miou"]["as_is"]["value"] == pytest.approx(metrics["pixel_miou"])
        assert found["pixel_miou"]["as_is"]["low"] < metrics["pixel_miou"] < found["pixel_miou"]["as_is"]["high"]


def test_an_sae_that_keeps_everything_recovers_everything(task, tmp_path):
    found = measured(task, kept(task, "everything"), tmp_path)["measures"]
    assert set(found) == {"accuracy", "log_loss", "patch_miou", "pixel_miou"}
    for measure, quantities in found.items():
        for base in ("zero", "mean"):
            assert quantities[f"recovered_from_{base}"] == {"value": 1, "low": 1, "high": 1}, measure
    table = pl.read_parquet(tmp_path / "faithfulness.parquet")
    assert len(table) == 4 * (len(REPLACEMENTS) + 4)
    assert set(table["n_images"]) == {N_MEASURE}
    inputs = json.loads((tmp_path / "faithfulness.json").read_text())["provenance"]["inputs"]
    assert len([path for path in inputs if path.endswith("metrics.json")]) == 2  # of the probe and of the head


def test_an_sae_that_keeps_the_mean_alone_recovers_nothing_of_it(task, tmp_path):
    found = measured(task, kept(task, "nothing"), tmp_path, files_of(task, "segmentation"))["measures"]
    assert set(found) == {"patch_miou", "pixel_miou"}
    for quantities in found.values():
        assert quantities["recovered_from_mean"]["value"] == pytest.approx(0, abs=1e-9)
        assert quantities["reconstruction"] == quantities["mean"]


def test_where_replacing_costs_nothing_no_share_is_given(task, tmp_path):
    """The class token of the last layer does not see the patches there."""
    files = files_of(task, "classification", probe="class_token")
    found = measured(task, kept(task, "nothing"), tmp_path, files)["measures"]["accuracy"]
    assert found["zero"] == found["as_is"]
    assert found["lost_to_zero"]["value"] == 0
    assert found["recovered_from_zero"] == {"value": None, "low": None, "high": None}


def test_batches_do_not_matter(task, tmp_path):
    config = kept(task, "something")
    found = [
        measured(task, config, tmp_path / str(size), settings=FaithfulnessSettings(batch_size=size, bootstrap=20))
        for size in (1, 32)
    ]
    for measure in ("accuracy", "patch_miou"):
        assert found[0]["measures"][measure] == found[1]["measures"][measure]


def test_the_mean_is_taken_over_pictures_that_are_evenly_spaced(task):
    store = ActivationStore.open(task.manifests[LAST])
    few = store.read(range(N_FIT), "patches")[[0, 14, 29]].mean(dim=(0, 1))
    torch.testing.assert_close(mean_tokens(store, range(N_FIT), 3, "patches")[0], few)
    with pytest.raises(DataError, match="no picture to take the mean token of"):
        mean_tokens(store, range(0), 3, "patches")
    every = store.read(range(N_FIT), "all")
    n_prefix = store.choice.n_prefix
    patches, own = every[:, n_prefix:].mean(dim=(0, 1)), every[:, :1].mean(dim=0)
    torch.testing.assert_close(mean_tokens(store, range(N_FIT), 1000, "patches")[0], patches)
    torch.testing.assert_close(mean_tokens(store, range(N_FIT), 1000, "class"), own)
    found = mean_tokens(store, range(N_FIT), 1000, "all")
    assert found.shape == every.shape[1:]
    torch.testing.assert_close(found[:1], own)
    torch.testing.assert_close(found[n_prefix:], patches.expand(every.shape[1] - n_prefix, -1))


def test_pictures_of_classes_that_were_not_learned_are_left_out(task, tmp_path):
    index = pl.read_parquet(task.folder / "index.parquet")
    other = pl.when(pl.col("image_id") >= N_FIT + 15).then(9).otherwise("label").cast(pl.Int32)
    index.with_columns(label=other).write_parquet(tmp_path / "index.parquet")
    names = {"kind": "scenes", "classes": [*NAMES, {"id": 9, "name": "boat"}]}
    (tmp_path / "summary.json").write_text(json.dumps(names))
    files = files_of(task, "classification", index=tmp_path / "index.parquet")
    found = measured(task, kept(task, "everything"), tmp_path / "out", files)
    assert found["n_images"] == {"accuracy": 15, "log_loss": 15}


def test_a_task_without_its_files_is_refused(task, tmp_path):
    with pytest.raises(DataError, match="labels: this task needs the file"):
        measured(task, kept(task, "everything"), tmp_path, files_of(task, "segmentation", labels=""))
    with pytest.raises(DataError, match="give the files of one task or several"):
        measured(task, task.folder, tmp_path, {})


def test_a_head_of_other_weights_and_a_store_of_another_layer_are_refused(task, tmp_path):
    for name in ("probe-mean", "head"):
        shutil.copytree(task.folder / name, tmp_path / name)
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        (tmp_path / name / "metrics.json").write_text(json.dumps({**metrics, "model_sha256": "f" * 64}))
    config = kept(task, "everything")
    for kind, folder in (("classification", "probe-mean"), ("segmentation", "head")):
        other = files_of(task, kind, readout=tmp_path / folder / "metrics.json")
        with pytest.raises(ModelError, match=rf"{folder}/metrics.json: trained on tokens of other weights"):
            measured(task, config, tmp_path, other)
        with pytest.raises(StoreError, match=rf"tokens of layer {MIDDLE}, but those of layer {LAST} are needed"):
            measured(task, config, tmp_path, files_of(task, kind, layer=MIDDLE))


def test_a_transcoder_is_refused(task, tmp_path):
    config = save_sae(SparseAutoencoder(task.d, 4, Relu(), d_target=task.d), tmp_path / "sae")
    with pytest.raises(ModelError, match="transcoder"):
        measured(task, config, tmp_path)
