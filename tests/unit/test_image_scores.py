"""Scores of whole pictures: planted latents, pooling, scikit-learn's numbers, and purity from the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from visae.config.settings import FeatureSettings
from visae.data.index import SCHEMA as INDEX_SCHEMA
from visae.errors import DataError
from visae.features.codes import FORMAT
from visae.features.image_scores import write_image_scores
from visae.features.purity import write_purity
from visae.features.ranking import Entries
from visae.files import write_json

N_IMAGES, N_FIT, N_PATCHES, WIDTH = 80, 50, 6, 12
SETTINGS = FeatureSettings(permutations=19, purity_at=5)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """Latent 3 is strong in one patch of cats' pictures, latent 5 a little active all over dogs'."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    labels = random.choice(3, size=N_IMAGES, p=[0.4, 0.4, 0.2])  # cat, dog, none
    codes = random.random((N_IMAGES, N_PATCHES, WIDTH)) * (random.random((N_IMAGES, N_PATCHES, WIDTH)) < 0.3)
    codes[labels == 0, 2, 3] = 4 + random.random((labels == 0).sum())
    codes[:, :, 5] = np.where((labels == 1)[:, None], 0.9, codes[:, :, 5] * (random.random((N_IMAGES, 1)) < 0.5))
    image, token, latent = np.nonzero(codes)
    columns = {"image_id": image, "token": token, "latent": latent, "value": codes[image, token, latent]}
    kinds = {"image_id": pl.Int32, "token": pl.Int16, "latent": pl.Int32, "value": pl.Float32}
    pl.DataFrame(columns).cast(kinds).write_parquet(folder / "shard.parquet")
    manifest = {"format": FORMAT, "n_images": N_IMAGES, "n_tokens": N_IMAGES * N_PATCHES, "width": WIDTH}
    shard = {"file": "shard.parquet", "rows": len(image), "bytes": (folder / "shard.parquet").stat().st_size}
    splits = {"train": [0, N_FIT], "val": [N_FIT, N_IMAGES]}
    write_json(folder / "manifest.json", manifest | {"splits": splits, "shards": [shard]})
    rows = {name: [None] * N_IMAGES for name in INDEX_SCHEMA} | {"image_id": list(range(N_IMAGES))}
    rows["label"] = [None if label == 2 else int(label) for label in labels]
    pl.DataFrame(rows, schema=INDEX_SCHEMA).write_parquet(folder / "index.parquet")
    write_json(folder / "summary.json", {"classes": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]})
    return folder, codes.astype(np.float32), labels


def inputs(folder: Path, name: str) -> tuple[Path, Path, Path]:
    return folder / "manifest.json", folder / "index.parquet", folder / name


def test_planted_latents_win_with_the_scores_of_scikit_learn(planted) -> None:
    folder, codes, labels = planted
    write_image_scores(*inputs(folder, "scores.parquet"), SETTINGS)
    table = pl.read_parquet(folder / "scores.parquet")
    best = {(row["pooling"], row["class_name"]): row for row in table.filter(pl.col("rank") == 0).iter_rows(named=True)}
    assert best["max", "cat"]["latent"] == best["sum", "cat"]["latent"] == 3
    assert best["sum", "dog"]["latent"] == 5
    assert best["max", "cat"]["auc_p"] == best["max", "cat"]["auc_p_best"] == 0.05
    known = labels[N_FIT:] < 2  # pictures without a label take no part
    pooled = {"max": codes[N_FIT:].max(axis=1)[known], "sum": codes[N_FIT:].sum(axis=1)[known]}
    for row in table.iter_rows(named=True):
        truth = labels[N_FIT:][known] == row["class_id"]
        values = pooled[row["pooling"]][:, row["latent"]].round(5)
        assert row["auc"] == pytest.approx(roc_auc_score(truth, values))
        assert row["average_precision"] == pytest.approx(average_precision_score(truth, values))
        assert row["n_images"] == truth.sum()
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]


def test_purity_of_pictures_own_labels(planted) -> None:
    folder, codes, labels = planted
    write_purity(*inputs(folder, "purity.parquet"), SETTINGS)
    table = pl.read_parquet(folder / "purity.parquet")
    assert table["latent"].to_list() == list(range(WIDTH))
    cat = table.row(3, named=True)
    assert (cat["class_name"], cat["purity"], cat["coverage"], cat["n"]) == ("cat", 1, 1, 5)
    n_cats = int((labels[N_FIT:] == 0).sum())
    assert cat["n_pictures"] == n_cats
    assert cat["coverage_null"] == pytest.approx((codes[N_FIT:, :, 3].max(axis=1) > 0).mean())
    assert cat["purity_p"] <= cat["purity_q"]


def test_a_data_set_without_labels_is_refused(planted, tmp_path: Path) -> None:
    folder = planted[0]
    index = pl.read_parquet(folder / "index.parquet").with_columns(pl.lit(None, dtype=pl.Int32).alias("label"))
    index.cast(INDEX_SCHEMA).write_parquet(tmp_path / "index.parquet")
    write_json(tmp_path / "summary.json", {"classes": []})
    with pytest.raises(DataError, match="the pictures have no labels"):
        write_image_scores(folder / "manifest.json", tmp_path / "index.parquet", tmp_path / "x.parquet", SETTINGS)


def test_negative_values_count_as_silence() -> None:
    codes = pl.LazyFrame({"image_id": [0, 1], "token": [0, 0], "latent": [0, 0], "value": [-1.0, 2.0]})
    assert Entries.of(codes, range(1), range(2)).picture.tolist() == [1]
