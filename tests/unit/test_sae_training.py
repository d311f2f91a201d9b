"""Training end to end on small planted data: recovery, outputs, errors."""

import dataclasses
import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import normalize

from visae.activations.given import write_store
from visae.activations.reader import ShuffledReader
from visae.activations.store import ActivationStore
from visae.config.settings import ReluSettings, TopKSettings
from visae.errors import StoreError, TrainingError
from visae.sae import load_sae
from visae.sae.checkpoints import Checkpoints
from visae.sae.data import TrainingData
from visae.sae.initial import initial_sae
from visae.sae.metrics import quality
from visae.sae.run import TrainingRun, learning_rate
from visae.sae.trainer import train

D_MODEL, PLANTED, ACTIVE = 24, 48, 3
SHARED = {"expansion": 4, "steps": 250, "batch_size": 512, "checkpoint_every": 100, "learning_rate": 5e-3, "seed": 3}
TOPK = TopKSettings(variant="topk", k=ACTIVE, dead_after_tokens=5000, auxk=16, **SHARED)
RELU = ReluSettings(variant="relu", l1=0.06, **{**SHARED, "learning_rate": 2e-2})


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Store of sparse mixtures of known directions, off-centre and in units of their own; and the directions."""
    rng = np.random.default_rng(8)
    directions = rng.standard_normal((PLANTED, D_MODEL))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    n_images, n_patches = 160, 64
    codes = np.zeros((n_images * n_patches, PLANTED))
    for row in codes:
        row[rng.choice(PLANTED, ACTIVE, replace=False)] = 1 + rng.random(ACTIVE)
    patches = 7.0 * (codes @ directions) + 20.0 * rng.standard_normal(D_MODEL)
    classes = 1e3 * np.ones((n_images, 1, D_MODEL))  # would ruin the normalization if it were read
    activations = np.concatenate([classes, patches.reshape(n_images, n_patches, D_MODEL)], axis=1)
    folder = tmp_path_factory.mktemp("planted")
    splits = {"train": 130, "val": 30}
    manifest = write_store(folder, activations.astype(np.float32), [-1, *range(n_patches)], splits, shards=2)
    return manifest, torch.from_numpy(directions).float()


@pytest.fixture(scope="module")
def trained(planted, tmp_path_factory):
    """Both variants trained: folder and summary by name."""
    found = {}
    for settings in (TOPK, RELU):
        folder = tmp_path_factory.mktemp(settings.variant)
        summary = train(settings, [planted[0]], folder / "out", folder / "work", device="cpu")
        found[settings.variant] = (folder, summary)
    return found


def recovered(sae, directions):
    """Mean over planted directions of the cosine of the decoder row that is nearest."""
    return float((directions @ normalize(sae.decoder_weight.detach()).T).max(1).values.mean())


@pytest.mark.parametrize("variant", ["topk", "relu"])
def test_planted_directions_are_recovered(variant, trained, planted):
    sae = load_sae(trained[variant][0] / "out" / "config.json")
    patches = ActivationStore.open(planted[0]).read(range(130)).flatten(0, 1)
    assert recovered(initial_sae(TOPK, patches, seed=3), planted[1]) < 0.7
    assert recovered(sae, planted[1]) > 0.9


@pytest.mark.parametrize("variant", ["topk", "relu"])
def test_outputs_agree_with_each_other(variant, trained, planted):
    folder, summary = trained[variant]
    assert json.loads((folder / "out" / "summary.json").read_text()) == summary
    assert {path.name for path in (folder / "out").iterdir()} == {
        "sae.safetensors",
        "config.json",
        "metrics.parquet",
        "summary.json",
    }
    assert not (folder / "work" / "checkpoints").exists()
    sae = load_sae(folder / "out" / "config.json")
    assert (summary["width"], summary["d_model"], summary["variant"]) == (4 * D_MODEL, D_MODEL, variant)
    norms = torch.linalg.vector_norm(sae.decoder_weight, dim=1)
    assert float((norms - 1).abs().max()) < 1e-5
    held_out = ActivationStore.open(planted[0]).read(range(130, 160)).flatten(0, 1)
    assert summary["n_tokens"] == len(held_out)
    assert summary["normalized_mse"] == pytest.approx(quality(sae, held_out).normalized_mse, rel=1e-4)
    assert summary["normalized_mse"] < 0.25
    assert summary["measured_on"] == "val"


def test_metrics_have_a_row_each_log_step_and_val_rows_at_checkpoints(trained):
    rows = pl.read_parquet(trained["topk"][0] / "out" / "metrics.parquet")
    train_rows, val_rows = rows.filter(split="train"), rows.filter(split="val")
    assert train_rows["step"].to_list() == list(range(10, 251, 10))
    assert val_rows["step"].to_list() == [100, 200, 250]
    assert train_rows["loss"][-1] < 0.3 * train_rows["loss"][0]
    parts = train_rows["reconstruction"] + train_rows["auxk"]
    assert (parts - train_rows["loss"]).abs().max() < 1e-6
    assert train_rows["tokens_per_second"].min() > 0
    assert train_rows["data_wait_share"].is_between(0, 1).all()
    assert val_rows["normalized_mse"][-1] == pytest.approx(trained["topk"][1]["normalized_mse"], rel=1e-6)


def test_normalization_gives_a_mean_squared_norm_of_d_model(trained, planted):
    sae = load_sae(trained["topk"][0] / "out" / "config.json")
    patches = ActivationStore.open(planted[0]).read(range(130)).flatten(0, 1)
    inputs = sae.normalized(patches)
    assert float(inputs.mean(0).abs().max()) < 0.02
    assert float(inputs.square().sum(1).mean()) == pytest.approx(D_MODEL, rel=0.02)


def test_relu_latents_start_out_active_on_few_tokens(planted):
    patches = ActivationStore.open(planted[0]).read(range(130)).flatten(0, 1)
    active = initial_sae(RELU, patches, seed=0).encode(patches) > 0
    assert float((active.float().mean(0) - 0.05).abs().max()) < 0.015


def test_a_store_without_val_is_measured_on_train_and_says_so(tmp_path):
    rng = np.random.default_rng(0)
    manifest = write_store(
        tmp_path / "store", rng.standard_normal((10, 16, 8)).astype(np.float32), list(range(16)), {"train": 10}
    )
    settings = TopKSettings(variant="topk", k=2, expansion=2, steps=3, batch_size=32)
    summary = train(settings, [manifest], tmp_path / "out", tmp_path / "work", device="cpu")
    assert summary["measured_on"] == "train (no store has a split val)"
    assert summary["n_tokens"] == 160


def test_constant_activations_are_refused(tmp_path):
    constant = np.full((4, 16, 8), 3.0, dtype=np.float32)
    manifest = write_store(tmp_path / "store", constant, list(range(16)), {"train": 4})
    settings = TopKSettings(variant="topk", k=2, steps=3, batch_size=32)
    with pytest.raises(TrainingError, match="all activations are the same"):
        train(settings, [manifest], tmp_path / "out", tmp_path / "work", device="cpu")


def test_a_loss_that_is_not_a_number_stops_before_the_weights_are_touched():
    settings = TopKSettings(variant="topk", k=2, expansion=2, steps=10)
    run = TrainingRun(settings, initial_sae(settings, torch.randn(100, 8), seed=0))
    run.advance(torch.randn(16, 8))
    before = {name: tensor.clone() for name, tensor in run.checkpoint().tensors.items()}
    with pytest.raises(TrainingError, match=r"step 2: the loss .* learning_rate \(now 0.008\)"):
        run.advance(torch.full((16, 8), math.inf))
    for name, tensor in run.checkpoint().tensors.items():
        assert torch.equal(tensor, before[name]), name


def test_a_run_that_goes_to_nan_keeps_its_last_good_checkpoint(planted, tmp_path):
    settings = dataclasses.replace(RELU, steps=50, checkpoint_every=1, learning_rate=1e30, gradient_clip=1e30)
    with pytest.raises(TrainingError, match=r"step \d+: .*not a finite number; try .* pictures \d+, .* more of "):
        train(settings, [planted[0]], tmp_path / "out", tmp_path / "work", device="cpu")
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "work/checkpoints").glob("step-*.json"))


def test_stored_values_that_are_not_finite_are_named_by_their_picture(tmp_path, monkeypatch):
    values = np.random.default_rng(0).standard_normal((12, 16, 8)).astype(np.float32)
    manifest = write_store(tmp_path / "store", values, list(range(16)), {"train": 10, "val": 2})
    original = ActivationStore.read_group

    def broken(self, shard, group, wanted, kinds):
        rows = original(self, shard, group, wanted, kinds).clone()
        if 7 in wanted:
            rows[wanted.index(7), 3] = math.nan
        return rows

    settings = TopKSettings(variant="topk", k=2, expansion=2, steps=9, batch_size=48, checkpoint_every=1)
    data = TrainingData([manifest], [], 48, 0)
    run = TrainingRun(settings, initial_sae(settings, data.sample.inputs, 0))
    Checkpoints(tmp_path / "work/checkpoints", {}).save(run.checkpoint())
    monkeypatch.setattr(ActivationStore, "read_group", broken)
    monkeypatch.setattr(Checkpoints, "newest", lambda self: run.checkpoint())
    with pytest.raises(TrainingError, match=r"these pictures are not finite: 7 of .*store; extract them again"):
        train(settings, [manifest], tmp_path / "out", tmp_path / "work", device="cpu")


def test_batches_know_their_pictures(tmp_path):
    """Values tell the picture; stores are two, pools are many, an epoch ends within a batch."""
    stores = []
    for number in range(2):
        images = 1000 * number + np.arange(700)
        values = np.broadcast_to(images[:, None, None], (700, 16, 4)).astype(np.float32)
        folder = tmp_path / str(number)
        stores.append(ActivationStore.open(write_store(folder, values, list(range(16)), {"train": 700}, shards=2)))
    reader = ShuffledReader(stores, "train", 300, seed=3, pool_bytes=40_000)
    for first in (0, 70):
        for number, batch in zip(range(first, first + 8), reader.batches(first), strict=False):
            which, images = reader.pictures(number)
            assert (1000 * which + images == batch[:, 0].numpy()).all()


def test_a_store_without_pictures_to_train_on_is_refused(tmp_path):
    values = np.zeros((4, 16, 8), dtype=np.float32)
    manifest = write_store(tmp_path / "store", values, list(range(16)), {"val": 4})
    with pytest.raises(StoreError, match="no tokens of split 'train'"):
        train(TOPK, [manifest], tmp_path / "out", tmp_path / "work", device="cpu")


def test_learning_rate_rises_holds_and_falls():
    settings = TopKSettings(variant="topk", steps=100, warmup_steps=10, decay_share=0.2, learning_rate=1.0)
    assert [learning_rate(settings, number) for number in (0, 4, 9, 50, 80, 90, 99)] == pytest.approx(
        [0.1, 0.5, 1, 1, 1, 0.5, 0.05]
    )
    flat = dataclasses.replace(settings, warmup_steps=0, decay_share=0.0)
    assert {learning_rate(flat, number) for number in range(100)} == {1.0}


def test_dead_latents_are_revived_by_the_auxiliary_loss(planted):
    manifest, _ = planted
    patches = ActivationStore.open(manifest).read(range(130)).flatten(0, 1)
    dead = {}
    for auxk in (0, 16):
        settings = dataclasses.replace(TOPK, auxk=auxk, dead_after_tokens=1024, encoder_start="unit")
        sae = initial_sae(settings, patches, seed=0)
        with torch.no_grad():  # half are too weak to ever be among the k largest
            sae.encoder_weight[: sae.width // 2] *= 0.001
        run = TrainingRun(settings, sae)
        for number in range(150):
            run.advance(patches[(number * 512) % 8000 :][:512])
        dead[auxk] = run.dead_share()
    assert dead[0] > 0.4
    assert dead[16] < 0.3


def test_the_default_learning_rate_follows_the_number_of_steps():
    rates = [TopKSettings(variant="topk", steps=steps).peak_learning_rate for steps in (10, 100, 400)]
    assert rates == pytest.approx([0.008, 0.008, 0.004])
    rates = [ReluSettings(variant="relu", steps=steps).peak_learning_rate for steps in (10, 100, 10_000)]
    assert rates == pytest.approx([0.036 / 10**0.5] * 2 + [0.0036])
    assert TopKSettings(variant="topk", learning_rate=0.5).peak_learning_rate == 0.5


def test_biases_are_faster_in_a_short_training():
    multiples = [ReluSettings(variant="relu", steps=steps).bias_multiple for steps in (10, 100, 300, 1200, 5000)]
    assert multiples == pytest.approx([12**1.5] * 2 + [8, 1, 1])
    assert ReluSettings(variant="relu", steps=100, bias_rate=3).bias_multiple == 3
    assert TopKSettings(variant="topk", steps=100).bias_multiple == 1


def test_biases_have_a_learning_rate_of_their_own():
    settings = ReluSettings(
        variant="relu", expansion=2, batch_size=64, learning_rate=1e-3, bias_rate=20, warmup_steps=0
    )
    data = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    run = TrainingRun(settings, initial_sae(settings, data, seed=0))
    before = {name: parameter.detach().clone() for name, parameter in run.sae.named_parameters()}
    run.advance(data)
    moved = {name: float((parameter - before[name]).abs().max()) for name, parameter in run.sae.named_parameters()}
    # Adam's first step is as long as the learning rate.
    assert moved["encoder_weight"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["encoder_bias"] == pytest.approx(2e-2, rel=1e-2)
    assert moved["decoder_bias"] == pytest.approx(2e-2, rel=1e-2)
