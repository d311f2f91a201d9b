"""Baselines: files, codes and sparsity as of SAEs, directions as of scikit-learn and of closed forms."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from sae_variants import D_MODEL, planted
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from torch.nn.functional import normalize

from visae.activations.given import write_store
from visae.config.sections import from_plain, parse_section
from visae.config.settings import (
    AnySae,
    KMeansSettings,
    NeuronsSettings,
    NmfSettings,
    PcaSettings,
    RandomSettings,
    TopKSettings,
)
from visae.errors import ConfigError, TrainingError
from visae.sae import load_sae
from visae.sae.data import TrainingData
from visae.sae.initial import initial_sae
from visae.sae.metrics import quality
from visae.sae.trainer import train
from visae.sae.variants.baselines import BASELINES

K = 5
CASES = [
    PcaSettings(variant="pca", k=K, batch_size=256),
    NeuronsSettings(variant="neurons", k=K, batch_size=256),
    KMeansSettings(variant="kmeans", expansion=3, k=K, batch_size=256),
    NmfSettings(variant="nmf", expansion=2, k=K, batch_size=256),
    RandomSettings(variant="random", expansion=3, k=K, batch_size=256),
]
assert {case.variant for case in CASES} == set(BASELINES), "a baseline without a case"
every_baseline = pytest.mark.parametrize("settings", CASES, ids=lambda settings: settings.variant)


@pytest.fixture(scope="module")
def data():
    """Tokens whose dimensions differ in mean and spread."""
    return planted(4000, seed=1, scale=3.0, shift=5.0) * torch.linspace(0.5, 2, D_MODEL)


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    values = data.view(250, 16, D_MODEL).numpy()
    return write_store(tmp_path_factory.mktemp("store"), values, list(range(16)), {"train": 200, "val": 50})


@every_baseline
def test_a_baseline_has_the_files_and_the_sparsity_of_an_sae(settings, store, data, tmp_path):
    summary = train(settings, [store], tmp_path / "out", tmp_path / "work", device="cpu")
    sae = load_sae(tmp_path / "out/config.json")
    assert (sae.variant.name, sae.variant.k, sae.width) == (settings.variant, K, settings.expansion * D_MODEL)
    torch.testing.assert_close(sae.decoder_weight.norm(dim=1), torch.ones(sae.width))
    held_out = quality(sae, data[3200:])
    assert summary["normalized_mse"] == pytest.approx(held_out.normalized_mse, rel=1e-4)
    assert summary["l0"] == pytest.approx(held_out.l0)
    # A token that is nearer to the mean of all than to most clusters has fewer.
    assert 0.6 * K < summary["l0"] <= K
    assert summary["dead_share"] == summary["silent_share"]
    assert (summary["n_tokens_trained"], summary["tokens_per_second"]) == (0, None)
    metrics = pl.read_parquet(tmp_path / "out/metrics.parquet")
    assert metrics.select("step", "split").rows() == [(0, "val")]
    assert metrics["normalized_mse"][0] == pytest.approx(summary["normalized_mse"])
    codes, dense = sae.sparse_codes(data), sae.encode(data)
    torch.testing.assert_close(codes.dense(), dense, atol=1e-5, rtol=1e-5)
    again = train(settings, [store], tmp_path / "again", tmp_path / "work", device="cpu")
    assert again["normalized_mse"] == summary["normalized_mse"]


@every_baseline
def test_codes_are_in_the_unit_with_the_least_error(settings, data):
    sae = initial_sae(settings, data, seed=3)
    least = quality(sae, data).normalized_mse
    assert least < 1
    for factor in (0.98, 1.02):
        other = initial_sae(settings, data, seed=3)
        other.weights.encoder.mul_(factor)
        other.weights.encoder_bias.mul_(factor)
        assert quality(other, data).normalized_mse > least


def test_pca_has_scikit_learns_components_and_the_largest_projections(data):
    sae = initial_sae(CASES[0], data, seed=0)
    expected = torch.from_numpy(PCA().fit(data.numpy()).components_)
    found = sae.decoder_weight.detach()
    torch.testing.assert_close((found[:D_MODEL] * expected).sum(1).abs(), torch.ones(D_MODEL), atol=1e-4, rtol=0)
    assert torch.equal(found[D_MODEL:], -found[:D_MODEL])
    # In an orthonormal basis the error is what the other projections hold.
    inputs = sae.normalized(data)
    squares = (inputs @ expected.T).square().sort(1).values
    error = float(squares[:, :-K].sum() / squares.sum())
    assert quality(sae, data).normalized_mse == pytest.approx(error, rel=1e-3)
    all_of_it = initial_sae(dataclasses.replace(CASES[0], k=D_MODEL), data, seed=0)
    torch.testing.assert_close(all_of_it(data).detach(), data, atol=1e-3, rtol=1e-4)


def test_neurons_are_the_coordinates_farthest_from_their_means(data):
    sae = initial_sae(CASES[1], data, seed=0)
    away = (data - data.mean(0)) / sae.scale
    limit = away.abs().sort(1, descending=True).values[:, K - 1 : K]
    kept = torch.where(away.abs() >= limit, away, 0)
    codes = sae.sparse_codes(data).dense()
    torch.testing.assert_close(codes[:, :D_MODEL], kept.relu(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(codes[:, D_MODEL:], (-kept).relu(), atol=1e-4, rtol=1e-4)


def test_kmeans_largest_code_is_the_cluster_that_scikit_learn_assigns(data):
    sae = initial_sae(CASES[2], data, seed=0)
    inputs = sae.normalized(data).numpy()
    rows, biases = sae.weights.encoder, sae.weights.encoder_bias
    factor = rows[0].square().sum() / -2 / biases[0]
    centres = (rows / factor).numpy()
    reference = MiniBatchKMeans(len(centres)).fit(inputs)
    reference.cluster_centers_ = centres
    assigned = torch.from_numpy(reference.predict(inputs)).long()
    codes = sae.sparse_codes(data).dense()
    has_any = codes.max(1).values > 0
    assert has_any.float().mean() > 0.95
    assert (codes.argmax(1) == assigned)[has_any].float().mean() > 0.999
    # The clusters are as good as scikit-learn's own.
    own = -reference.score(inputs)
    theirs = MiniBatchKMeans(len(centres), random_state=1, n_init=1).fit(inputs).inertia_
    assert own < 1.05 * theirs


def test_kmeans_of_more_clusters_than_tokens_is_refused(data):
    with pytest.raises(TrainingError, match="48 clusters of only 40 tokens; lower it"):
        initial_sae(CASES[2], data[:40], seed=0)


def test_nmf_finds_planted_parts():
    random = np.random.default_rng(0)
    parts = np.eye(4).repeat(D_MODEL // 4, 1)
    strength = random.gamma(1, size=(4000, 4)) * (random.random((4000, 4)) < 0.3)
    values = torch.from_numpy(strength @ parts).float()
    sae = initial_sae(NmfSettings(variant="nmf", expansion=1, k=2, batch_size=256, passes=3), values, seed=0)
    cosines = sae.decoder_weight.detach() @ normalize(torch.from_numpy(parts).float()).T
    assert float(cosines.max(0).values.min()) > 0.9


def test_random_directions_are_those_of_the_seed(data):
    first, same, other = (initial_sae(CASES[4], data, seed=seed).weights.decoder for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert float((first * other).sum(1).abs().max()) < 0.95
    assert float(first.mean(0).norm()) < 3 / len(first) ** 0.5


def test_no_steps_leave_an_sae_untrained(store, data, tmp_path):
    settings = TopKSettings(variant="topk", expansion=4, k=K, steps=0, batch_size=256)
    summary = train(settings, [store], tmp_path / "out", tmp_path / "work", device="cpu")
    found = load_sae(tmp_path / "out/config.json").state_dict()
    start = initial_sae(settings, TrainingData([store], [], 256, 0).sample.inputs, seed=0).state_dict()
    assert (summary["n_tokens_trained"], summary["l0"]) == (0, K)
    assert all(torch.equal(found[name], tensor) for name, tensor in start.items())


def test_sections_of_baselines_have_no_settings_of_training():
    assert from_plain(AnySae, {"variant": "pca", "k": 7}) == PcaSettings(variant="pca", k=7)
    with pytest.raises(ConfigError, match="unknown key 'steps'"):
        parse_section(AnySae, {"variant": "pca", "steps": 3}, "saes: x")
    with pytest.raises(ConfigError, match="unknown key 'expansion'"):
        parse_section(AnySae, {"variant": "neurons", "expansion": 3}, "saes: x")
    with pytest.raises(ConfigError, match="40 latents kept of only 32"):
        initial_sae(PcaSettings(variant="pca", k=40), torch.randn(100, D_MODEL), seed=0)
