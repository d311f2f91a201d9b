"""Concept scores find planted latents, measure them on other pictures, and leave out what cannot be measured."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from visae.config.settings import FeatureSettings
from visae.data.index import SCHEMA as INDEX_SCHEMA
from visae.data.split_names import Splits
from visae.errors import DataError
from visae.features.codes import FORMAT
from visae.features.scores import SCHEMA, write_scores
from visae.files import write_json

N_IMAGES, N_FIT, N_PATCHES, WIDTH = 60, 40, 25, 30
CLASSES = {1: "sky", 2: "road", 3: "only in train", 4: "nowhere"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """Latent 6 fires on class 1 with some errors, latent 9 everywhere but above 3 only on class 2; others at random."""
    folder = tmp_path_factory.mktemp("scores")
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2], size=(N_IMAGES, N_PATCHES), p=[0.3, 0.4, 0.3])
    labels[:N_FIT][random.random((N_FIT, N_PATCHES)) < 0.05] = 3
    purity = random.uniform(0.6, 1, labels.shape).astype(np.float32)
    codes = random.random((N_IMAGES, N_PATCHES, WIDTH)).astype(np.float32)
    codes *= random.random(codes.shape) < 0.2
    codes[..., 6] = np.where((labels == 1) ^ (random.random(labels.shape) < 0.1), 1 + random.random(labels.shape), 0)
    codes[..., 9] = np.where(labels == 2, 3.5, 0.5) + random.random(labels.shape)
    image, token, latent = np.nonzero(codes)
    pl.DataFrame(
        {
            "image_id": image.astype(np.int32),
            "token": token.astype(np.int16),
            "latent": latent.astype(np.int32),
            "value": codes[image, token, latent],
        }
    ).write_parquet(folder / "shard.parquet")
    manifest = {"format": FORMAT, "n_images": N_IMAGES, "n_tokens": labels.size, "width": WIDTH}
    shard = {"file": "shard.parquet", "rows": len(image), "bytes": (folder / "shard.parquet").stat().st_size}
    splits = {"train": [0, N_FIT], "val": [N_FIT, N_IMAGES]}
    write_json(folder / "manifest.json", manifest | {"splits": splits, "shards": [shard]})
    pl.DataFrame({"image_id": range(N_IMAGES)}, schema_overrides={"image_id": pl.Int32}).select(
        pl.col(name) if name == "image_id" else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in INDEX_SCHEMA.items()
    ).write_parquet(folder / "index.parquet")
    write_json(folder / "summary.json", {"classes": [{"id": n, "name": name} for n, name in CLASSES.items()]})
    pl.DataFrame(
        {
            "image_id": np.repeat(np.arange(N_IMAGES, dtype=np.int32), N_PATCHES),
            "token": np.tile(np.arange(N_PATCHES, dtype=np.int16), N_IMAGES),
            "label": labels.ravel().astype(np.int16),
            "purity": purity.ravel(),
        }
    ).write_parquet(folder / "labels.parquet")
    return folder, codes, labels, purity


def scored(folder: Path, name: str = "scores", seed: int = 0) -> pl.DataFrame:
    inputs = (folder / "manifest.json", folder / "labels.parquet", folder / "index.parquet")
    write_scores(*inputs, folder / f"{name}.parquet", FeatureSettings(permutations=9), seed=seed)
    return pl.read_parquet(folder / f"{name}.parquet")


def test_planted_latents_win_with_the_scores_of_scikit_learn(planted) -> None:
    folder, codes, labels, purity = planted
    table = scored(folder)
    best = {row["class_id"]: row for row in table.filter(pl.col("rank") == 0).iter_rows(named=True)}
    assert (best[1]["latent"], best[1]["threshold"]) == (6, 0)
    assert best[2]["latent"] == 9
    assert best[2]["threshold"] > 1  # 0 would fire on every patch
    for row in table.filter(pl.col("f1").is_not_null()).iter_rows(named=True):
        for split, part in (("fit", slice(0, N_FIT)), ("val", slice(N_FIT, None))):
            kept = (labels[part] > 0) & (purity[part] >= np.float32(0.9))
            truth = labels[part][kept] == row["class_id"]
            found = codes[part][kept][:, row["latent"]] > np.float32(row["threshold"])
            if split == "fit":
                assert row["f1_fit"] == pytest.approx(f1_score(truth, found))
                continue
            assert row["n_patches"] == truth.sum()
            assert row["f1"] == pytest.approx(f1_score(truth, found))
            assert row["recall"] == pytest.approx(recall_score(truth, found))
            if found.any():
                assert row["precision"] == pytest.approx(precision_score(truth, found))
        assert row["f1_low"] <= row["f1"] <= row["f1_high"]
    assert best[2]["f1_random"] < 0.5 < best[2]["f1"]


def test_ranks_are_by_the_fit_split(planted) -> None:
    of_class = scored(planted[0]).filter(pl.col("class_id") == 1)
    assert of_class["rank"].to_list() == [0, 1, 2, 3, 4]
    assert of_class["f1_fit"].is_sorted(descending=True)
    assert of_class["latent"].n_unique() == 5


def test_what_cannot_be_measured_is_null(planted) -> None:
    table = scored(planted[0])
    unseen = table.filter(pl.col("class_id") == 3)
    assert unseen["latent"].null_count() == 0
    assert unseen["n_patches"].unique().to_list() == [0]
    scores = [name for name in SCHEMA if name.startswith(("f1", "average", "auc")) and not name.endswith("_fit")]
    measured = ("precision", "recall", *scores)
    assert all(unseen[name].null_count() == unseen.height for name in measured)
    nowhere = table.filter(pl.col("class_id") == 4)
    assert nowhere.height == 1
    assert nowhere.select("n_patches_fit", "n_patches").row(0) == (0, 0)
    assert nowhere.select("latent", "f1_fit", *measured).row(0) == (None,) * (2 + len(measured))


def test_interval_has_the_width_of_the_sampling_error(planted) -> None:
    """The patches are independent here, so the interval must agree with one over resampled patches."""
    folder, codes, labels, purity = planted
    row = scored(folder).filter((pl.col("class_id") == 1) & (pl.col("rank") == 0)).row(0, named=True)
    kept = (labels[N_FIT:] > 0) & (purity[N_FIT:] >= np.float32(0.9))
    truth, found = labels[N_FIT:][kept] == 1, codes[N_FIT:][kept][:, row["latent"]] > 0
    random = np.random.default_rng(5)
    draws = random.integers(len(truth), size=(2000, len(truth)))
    low, high = np.quantile([f1_score(truth[at], found[at]) for at in draws[:300]], [0.025, 0.975])
    assert 0.5 < (row["f1_high"] - row["f1_low"]) / (high - low) < 1.7


def test_same_seed_same_table(planted) -> None:
    assert scored(planted[0], "a", 3).equals(scored(planted[0], "b", 3))
    assert not scored(planted[0], "a", 3).equals(scored(planted[0], "c", 4))


def test_unknown_split_is_named(planted) -> None:
    folder = planted[0]
    inputs = (folder / "manifest.json", folder / "labels.parquet", folder / "index.parquet")
    with pytest.raises(DataError, match="no split test"):
        write_scores(*inputs, folder / "x.parquet", FeatureSettings(), splits=Splits(measure_split="test"))
