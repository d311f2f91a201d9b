"""SAEs of class tokens, of all tokens, and of every kind of normalization: how they start, learn and are measured."""

import json

import numpy as np
import pytest
import torch

from visae.activations.given import write_store
from visae.activations.reader import ShuffledReader
from visae.activations.store import ActivationStore
from visae.config.settings import GatedSettings, PcaSettings, ReluSettings, TopKSettings
from visae.errors import StoreError, TrainingError
from visae.sae import Place, load_sae
from visae.sae.data import TrainingData
from visae.sae.initial import initial_sae
from visae.sae.metrics import quality
from visae.sae.trainee import Trainee
from visae.sae.trainer import train, train_together
from visae.work import Member

KINDS = ("none", "scale", "per_dimension", "per_token")
D, IMAGES, PATCHES = 16, 400, 9
TOPK = {"variant": "topk", "k": 4, "expansion": 4, "batch_size": 128, "checkpoint_every": 1000, "auxk": 0}


def sparse_rows(n, seed):
    """Rows that are sums of three of 24 directions, about a mean of their own."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).normal(size=(24, D)) / D**0.5
    codes = rng.exponential(size=(n, 24)) * (rng.random((n, 24)) < 1 / 8)
    return codes @ directions + np.linspace(0.3, 1.0, D)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Class tokens, a register and patches that differ in mean and size."""
    rows = sparse_rows(IMAGES * (2 + PATCHES), 1).reshape(IMAGES, 2 + PATCHES, D)
    rows[:, 0] = 5 * rows[:, 0] + 3
    rows[:, 1] -= 20
    tokens = [-1, -2, *range(PATCHES)]
    return write_store(tmp_path_factory.mktemp("store"), rows.astype(np.float32), tokens, {"train": 300, "val": 100})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        TopKSettings(**TOPK),
        ReluSettings(variant="relu", expansion=4),
        GatedSettings(variant="gated", expansion=4),
        PcaSettings(variant="pca", k=4),
    ],
    ids=lambda settings: settings.variant,
)
def test_every_kind_starts_as_good_as_one_that_centres(settings, kind):
    rows = torch.from_numpy(sparse_rows(4000, 2)).float()
    kinds = {}
    for each in ("scale", kind):
        own = type(settings)(**{**vars(settings), "normalization": each})
        kinds[each] = quality(initial_sae(own, rows, seed=0), rows).normalized_mse
    assert kinds[kind] < 1.25 * kinds["scale"]


def test_the_start_of_none_is_that_of_scale_where_the_scale_is_one():
    rows = torch.from_numpy(sparse_rows(3000, 3)).float()
    scale = float((rows - rows.mean(0)).square().mean().sqrt())
    rows = rows / scale
    for settings in (TopKSettings(**TOPK), GatedSettings(variant="gated", expansion=4)):
        scaled, raw = (
            initial_sae(type(settings)(**{**vars(settings), "normalization": kind}), rows, seed=0)
            for kind in ("scale", "none")
        )
        torch.testing.assert_close(raw.encode(rows), scaled.encode(rows), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(raw(rows), scaled(rows), rtol=1e-3, atol=1e-3)


def test_a_dimension_that_does_not_vary_keeps_others_as_they_are():
    rows = torch.from_numpy(sparse_rows(2000, 4)).float()
    rows[:, 3] = 7.0
    sae = initial_sae(TopKSettings(**TOPK, normalization="per_dimension"), rows, seed=0)
    others = [number for number in range(D) if number != 3]
    torch.testing.assert_close(sae.scale[others], rows.std(0, correction=0)[others])
    torch.testing.assert_close(sae.normalized(rows)[:, 3], torch.zeros(2000))
    assert torch.isfinite(sae(rows)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_activations_that_are_all_the_same_are_refused(kind):
    with pytest.raises(TrainingError, match="all activations are the same"):
        initial_sae(TopKSettings(**TOPK, normalization=kind), torch.full((500, D), 3.0), seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clamp_is_about_the_samples_mean_whatever_the_normalization(kind):
    rows = torch.from_numpy(sparse_rows(3000, 5)).float()
    rows[0, 2] = 1e4
    sae = initial_sae(TopKSettings(**TOPK, normalization=kind, clamp=3.0), rows, seed=0)
    free = sae.unclamped(rows)
    middle, deviation = free.mean(0), free.std(0, correction=0)
    wanted = torch.minimum(torch.maximum(free, middle - 3 * deviation), middle + 3 * deviation)
    torch.testing.assert_close(sae.normalized(rows), wanted, rtol=1e-3, atol=1e-3 * float(deviation.max()))
    assert not torch.equal(sae.normalized(rows), free)


@pytest.mark.parametrize("tokens", ["patches", "class", "all"])
@pytest.mark.parametrize("kind", ["scale", "per_token"])
def test_training_reads_its_own_tokens_and_writes_where_it_belongs(manifest, tokens, kind, tmp_path):
    settings = TopKSettings(**TOPK, steps=150, tokens=tokens, normalization=kind)
    summary = train(settings, [manifest], tmp_path / "out", tmp_path / "work", "cpu")
    n_tokens = {"patches": PATCHES, "class": 1, "all": 2 + PATCHES}[tokens]
    assert summary["n_tokens"] == 100 * n_tokens
    assert summary["normalized_mse"] < 0.35
    sae = load_sae(tmp_path / "out/config.json")
    store = ActivationStore.open(manifest)
    said = json.loads(manifest.read_text())
    assert sae.place == Place(layer=said["layer"], hook=said["hook"], tokens=tokens)
    assert sae.normalization == kind
    held_out = store.read(store.image_ids("val"), tokens)
    assert quality(sae, held_out.flatten(0, 1)).normalized_mse == pytest.approx(summary["normalized_mse"], rel=1e-3)
    if kind == "scale":
        own = store.read(store.image_ids("train"), tokens).flatten(0, 1).mean(0)
        torch.testing.assert_close(sae.mean, own, rtol=0.1, atol=0.1)


def test_class_tokens_are_read_once_an_epoch(manifest):
    store = ActivationStore.open(manifest)
    reader = ShuffledReader([store], "train", 100, seed=0, kinds="class")
    batches = reader.batches()
    rows = torch.cat([next(batches) for _ in range(3)])
    batches.close()
    own = store.read(store.image_ids("train"), "class")[:, 0]
    assert reader.n_tokens == 300
    assert torch.equal(rows.sort(0).values, own.sort(0).values)
    data = TrainingData([manifest], [], 100, 0, "class")
    with data.batches() as found:
        first = next(found).inputs
    _, images = data.reader.pictures(0)
    assert torch.equal(first, own[torch.from_numpy(images)])


def test_a_training_on_class_tokens_that_was_killed_ends_as_one_that_was_not(manifest, tmp_path):
    steps = 12
    settings = TopKSettings(**{**TOPK, "checkpoint_every": 5}, steps=steps, tokens="class", normalization="per_token")
    train(settings, [manifest], tmp_path / "whole", tmp_path / "work", "cpu")

    class Killed(Exception):
        pass

    learn, count = Trainee.learn, iter(range(100))

    def killed(self, *rest):
        if next(count) == 7:
            raise Killed
        return learn(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainee, "learn", killed)
        with pytest.raises(Killed):
            train(settings, [manifest], tmp_path / "cut", tmp_path / "work2", "cpu")
    train(settings, [manifest], tmp_path / "cut", tmp_path / "work2", "cpu")
    whole, cut = ((tmp_path / name / "sae.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_what_reads_other_tokens_is_not_trained_on_one_reading(manifest, tmp_path):
    members = [
        Member(TopKSettings(**TOPK, steps=1, tokens=tokens), tmp_path / tokens, tmp_path / "work" / tokens)
        for tokens in ("patches", "class")
    ]
    with pytest.raises(TrainingError, match="tokens: members that are trained together must have the same one"):
        train_together(members, [manifest], "cpu")


def test_a_model_without_a_class_token_is_refused_with_what_to_do(tmp_path):
    rows = sparse_rows(40, 6).reshape(10, 4, D).astype(np.float32)
    manifest = write_store(tmp_path / "store", rows, [0, 1, 2, 3], {"train": 10})
    settings = TopKSettings(**TOPK, steps=1, tokens="class")
    with pytest.raises(StoreError, match=r"no \[CLS\] token: the model has none; choose tokens: patches"):
        train(settings, [manifest], tmp_path / "out", tmp_path / "work", "cpu")
