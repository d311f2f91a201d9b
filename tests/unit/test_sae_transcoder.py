"""A transcoder from two stores to its file: rows in step, recovery of a planted map, refusals."""

import dataclasses

import numpy as np
import pytest
import torch

from visae.activations.given import write_store
from visae.activations.pair import StorePair
from visae.activations.reader import ShuffledReader
from visae.activations.store import ActivationStore
from visae.config.settings import TopKSettings
from visae.edits.edit import refuse_transcoder
from visae.errors import ModelError, StoreError
from visae.features.encoding import encode_store
from visae.sae import load_sae
from visae.sae.trainer import train

TOKENS = [-1, *range(16)]
SPLITS = {"train": 100, "val": 20}
SETTINGS = TopKSettings(variant="topk", k=4, expansion=4, steps=300, batch_size=256, learning_rate=5e-3, target_layer=3)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Two stores cut into unlike shards: sparse mixtures of 12 directions, and of 12 others with the same weights."""
    rng = np.random.default_rng(4)
    codes = rng.uniform(1, 2, (120, 17, 12)) * (rng.random((120, 17, 12)) < 0.2)
    folder = tmp_path_factory.mktemp("layers")
    manifests = []
    for name, width, shards in (("in", 12, 2), ("out", 20, 3)):
        directions = np.linalg.qr(rng.standard_normal((width, width)))[0][:12]
        values = (codes @ directions * 5 + 3).astype(np.float32)
        manifests.append(write_store(folder / name, values, TOKENS, SPLITS, shards=shards))
    return manifests


def test_both_stores_are_read_in_step(layers) -> None:
    one, other = (ActivationStore.open(path) for path in layers)
    pair = StorePair(one, other)
    reader = ShuffledReader([pair], "train", 64, seed=1, pool_bytes=20_000)
    batches = reader.batches()
    left, right = one.read(range(100)), other.read(range(100))
    for number in (0, 1, 2):
        batch = next(batches)
        _, images = reader.pictures(number)
        for row, image in zip(batch, images, strict=True):
            (token,) = (left[image] == row[:12]).all(1).nonzero()[:1, 0]
            assert torch.equal(right[image][token], row[12:])
    batches.close()


def test_it_learns_the_planted_map_and_its_files_say_both_layers(layers, tmp_path) -> None:
    summary = train(SETTINGS, [layers[0]], tmp_path / "out", tmp_path / "work", "cpu", target_manifests=[layers[1]])
    assert summary["normalized_mse"] < 0.2
    assert (summary["d_model"], summary["d_target"]) == (12, 20)
    assert {"layer", "hook", "target_layer", "target_hook"} <= set(summary)
    sae = load_sae(tmp_path / "out/config.json")
    assert sae.is_transcoder
    one, other = (ActivationStore.open(path).read(range(100, 120)).flatten(0, 1) for path in layers)
    error = (sae(one) - other).square().sum() / (other - other.mean(0)).square().sum()
    assert float(error) == pytest.approx(summary["normalized_mse"], rel=1e-3)
    # Codes come from what goes in alone.
    manifest = encode_store(layers[0], tmp_path / "out/config.json", tmp_path / "codes", "cpu")
    assert manifest
    with pytest.raises(ModelError, match=r"a transcoder .* cannot be edited"):
        refuse_transcoder(sae, tmp_path / "out/config.json")


@pytest.mark.parametrize(
    ("tokens", "splits", "message"),
    [
        (list(range(17)), SPLITS, "choice differs"),
        (TOKENS, {"train": 90, "val": 30}, "splits differs"),
        (TOKENS, {"train": 50}, "n_images differs"),
    ],
)
def test_stores_of_other_tokens_are_refused(layers, tmp_path, tokens, splits, message) -> None:
    values = np.ones((sum(splits.values()), 17, 8), dtype=np.float32)
    other = write_store(tmp_path / "other", values, tokens, splits)
    with pytest.raises(StoreError, match=f"target_layer: .*{message}"):
        train(SETTINGS, [layers[0]], tmp_path / "out", tmp_path / "work", "cpu", target_manifests=[other])


def test_a_target_for_each_store_is_asked_for(layers, tmp_path) -> None:
    with pytest.raises(StoreError, match="1 target stores for 2 stores"):
        train(SETTINGS, [layers[0]] * 2, tmp_path / "out", tmp_path / "work", "cpu", target_manifests=[layers[1]])
    assert dataclasses.replace(SETTINGS, target_hook="mlp").target_point == "3-mlp"
