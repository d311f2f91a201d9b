"""The MonoSemanticity score: known values, the double loop that defines it, errors, nulls, and whole files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.sparse import csr_array

from visae.activations.given import write_store
from visae.config.settings import FeatureSettings, ModelIdentity
from visae.data.index import SCHEMA as INDEX_SCHEMA
from visae.features.codes import FORMAT
from visae.features.monosemanticity import (
    encoded,
    mean_activations,
    monosemanticity,
    score_block,
    scores_with_errors,
    unit,
    write_monosemanticity,
)
from visae.features.resampling import permutations
from visae.files import write_json
from visae.vision.model import prepare_model


def made(seed: int, n_pictures: int = 40, width: int = 15, d: int = 6) -> tuple[csr_array, np.ndarray]:
    random = np.random.default_rng(seed)
    dense = random.random((width, n_pictures)) * (random.random((width, n_pictures)) < 0.4)
    return csr_array(dense), unit(random.standard_normal((n_pictures, d))).astype(np.float64)


def by_pairs(weights: np.ndarray, embeddings: np.ndarray) -> float:
    """The definition, pair by pair."""
    above = below = 0.0
    for i in range(len(weights)):
        for j in range(len(weights)):
            if i != j:
                above += weights[i] * weights[j] * float(embeddings[i] @ embeddings[j])
                below += weights[i] * weights[j]
    return above / below if below else np.nan


def test_scores_are_those_of_all_pairs() -> None:
    weights, embeddings = made(0)
    expected = [by_pairs(row, embeddings) for row in weights.toarray()]
    assert monosemanticity(weights, embeddings) == pytest.approx(expected, abs=1e-10)


def test_known_values() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    weights = np.array([[3, 7, 0, 0], [1, 1, 1, 0], [5, 0, 0, 2], [1, 1, 0, 2], [9, 0, 0, 0], [0, 0, 0, 0]])
    found = monosemanticity(csr_array(weights.astype(float)), embeddings)
    # Equal; one equal pair of three; opposite; (1 - 2 - 2) of 1 + 2 + 2; no pair.
    assert found[:4] == pytest.approx([1, 1 / 3, -1, -3 / 5])
    assert np.isnan(found[4:]).all()


def test_the_scale_of_a_latent_does_not_matter() -> None:
    weights, embeddings = made(1)
    assert monosemanticity(weights * 7, embeddings) == pytest.approx(monosemanticity(weights, embeddings))


def test_errors_are_those_of_leaving_each_picture_out() -> None:
    weights, embeddings = made(2)
    _, errors = scores_with_errors(weights, embeddings)
    for row, error in zip(weights.toarray(), errors, strict=True):
        active = np.flatnonzero(row)
        left = [by_pairs(np.delete(row, i), np.delete(embeddings, i, axis=0)) for i in active]
        assert error == pytest.approx(np.sqrt((len(active) - 1) * np.var(left)))


def test_a_planted_latent_is_beyond_chance_and_noise_is_not() -> None:
    random = np.random.default_rng(3)
    groups = random.integers(0, 4, 80)
    embeddings = unit(np.eye(4)[groups] + 0.3 * random.standard_normal((80, 4)))
    dense = random.random((200, 80)) * (random.random((200, 80)) < 0.3)
    dense[5] = random.random(80) * (groups == 2)
    table = score_block(csr_array(dense), embeddings, permutations(80, 99, 0), range(200))
    planted = table.row(5, named=True)
    assert planted["monosemanticity"] > 0.7 > planted["monosemanticity_null_95"]
    assert planted["monosemanticity_low"] < planted["monosemanticity"] < planted["monosemanticity_high"]
    assert planted["monosemanticity_p"] == 0.01
    noise = table.filter(pl.col("latent") != 5)
    # Expected at 5 %: 10 of 199; more than 20 has a probability below 0.2 %.
    assert (noise["monosemanticity_p"] <= 0.05).sum() <= 20
    assert noise["monosemanticity"].mean() == pytest.approx(noise["monosemanticity_null"].mean(), abs=0.02)


def test_a_studys_own_activations_can_be_the_judge(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((70, 5, 8)).astype(np.float32)
    write_store(tmp_path / "store", values, [-1, *range(4)], {"train": 3, "val": 67}, dtype="float32")
    found = mean_activations(tmp_path / "store" / "manifest.json", range(3, 70))
    assert found == pytest.approx(values[3:, 1:].mean(axis=1), abs=1e-6)


def test_few_pictures_give_no_score() -> None:
    dense = np.zeros((2, 30))
    dense[0, :9], dense[1, :10] = 1, 1
    table = score_block(csr_array(dense), made(0, 30)[1], permutations(30, 3, 0), range(2))
    assert np.isnan(table["monosemanticity"][0])
    assert not np.isnan(table["monosemanticity"][1])
    assert table["images"].to_list() == [9, 10]


def test_any_timm_model_can_be_the_judge(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = {name: [None] * 24 for name in INDEX_SCHEMA} | {"image_id": list(range(24)), "path": []}
    for number in range(24):
        picture = (120 * (number % 2) + random.integers(0, 60, (32, 32, 3))).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        rows["path"].append(str(tmp_path / f"{number}.png"))
    pl.DataFrame(rows, schema=INDEX_SCHEMA).write_parquet(tmp_path / "index.parquet")
    identity = ModelIdentity(architecture="vit_tiny_patch16_224", weights="random", image_size=32)
    prepare_model(identity, tmp_path / "weights.safetensors", tmp_path / "model.json")
    embeddings = encoded(tmp_path / "index.parquet", tmp_path / "model.json", range(24), "cpu")
    assert embeddings.shape == (24, 192)
    codes = pl.DataFrame(
        {
            "image_id": [*range(0, 24, 2), *range(24)],
            "token": [0] * 36,
            "latent": [0] * 12 + [1] * 24,
            "value": [1.0] * 36,
        },
        schema={"image_id": pl.Int32, "token": pl.Int16, "latent": pl.Int32, "value": pl.Float32},
    )
    codes.write_parquet(tmp_path / "codes.parquet")
    manifest = {"format": FORMAT, "n_images": 24, "n_tokens": 24, "width": 3, "splits": {"val": [0, 24]}}
    shard = {"file": "codes.parquet", "rows": 36, "bytes": (tmp_path / "codes.parquet").stat().st_size}
    write_json(tmp_path / "manifest.json", manifest | {"shards": [shard]})
    inputs = (tmp_path / "manifest.json", tmp_path / "index.parquet", tmp_path / "out.parquet")
    write_monosemanticity(*inputs, FeatureSettings(permutations=9), tmp_path / "model.json", device="cpu")
    table = pl.read_parquet(tmp_path / "out.parquet")
    # The latent of the dark pictures is above that of all pictures; the third is silent.
    assert table["monosemanticity"][0] > table["monosemanticity"][1]
    assert table["monosemanticity"][2] is None
    expected = by_pairs(np.arange(24) % 2 == 0, unit(embeddings))
    assert table["monosemanticity"][0] == pytest.approx(expected, abs=1e-5)
