"""AUCs equal scikit-learn's, planted latents are found, and a trained SAE beats an untrained one on a real model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from visae.activations.extract import StoreSource, extract_shard, publish_store
from visae.config.settings import (
    FeatureSettings,
    FigureSettings,
    ModelSettings,
    NeuronsSettings,
    ScenesSettings,
    TopKSettings,
)
from visae.data.index import build_index, read_classes, read_index
from visae.data.patch_labels import patch_labels, write_patch_labels
from visae.errors import DataError
from visae.features.auc import latent_aucs, weighted_auc
from visae.features.codes import FORMAT
from visae.features.encoding import encode_store
from visae.features.ground_truth import CAUSES, caused_patches, write_cause_scores
from visae.figures.ground_truth import print_ground_truth
from visae.figures.of_tables import draw_tables
from visae.files import read_json, write_json
from visae.sae.trainer import train
from visae.vision.model import prepare_model

GRID, SIDE = (8, 8), 64
SCENES = ScenesSettings(kind="scenes", train=40, val=24, test=1, image_size=SIDE)


def test_aucs_equal_scikit_learns() -> None:
    random = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])[random.integers(0, 3, 300)]
    # Few levels, so that many active values are tied too.
    dense = (random.integers(1, 6, (300, 7)) * (random.random((300, 7)) < 0.4)).astype(np.float32)
    dense[:, 6] = 0
    dense[labels == "c", 5] = 0
    at, latent = np.nonzero(dense)
    active = pl.DataFrame({"latent": latent, "class_id": labels[at], "value": dense[at, latent]})
    sizes = pl.DataFrame({"class_id": labels}).group_by("class_id").agg(pl.len().alias("positives"))
    found = latent_aucs(active, sizes)
    expected = [
        (name, number, roc_auc_score(labels == name, dense[:, number]))
        for name in "abc"
        for number in range(7)
        if (dense[labels == name, number] > 0).any()
    ]
    assert found.select("class_id", "latent").rows() == [row[:2] for row in expected]
    assert found["auc"].to_list() == pytest.approx([row[2] for row in expected], abs=1e-12)
    pictures = np.arange(300) // 10
    weights = random.integers(0, 3, (4, 30)).astype(np.float64)
    for number in range(7):
        resampled = weighted_auc(dense[:, number], labels == "a", pictures, weights)
        for weight, auc in zip(weights, resampled, strict=True):
            counted = roc_auc_score(labels == "a", dense[:, number], sample_weight=weight[pictures])
            assert auc == pytest.approx(counted, abs=1e-12)
    assert np.isnan(weighted_auc(dense[:, 0], labels == "none", pictures, weights)).all()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index and patch labels of small scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    build_index(SCENES, folder / "index.parquet")
    parts = []
    for image, mask in read_index(folder / "index.parquet").select("image_id", "mask_path").iter_rows():
        labels, purity = patch_labels(np.asarray(Image.open(mask)), GRID, 9)
        columns = {"image_id": [image] * 64, "token": range(64), "label": labels, "purity": purity}
        types = {"image_id": pl.Int32, "token": pl.Int16, "label": pl.Int16, "purity": pl.Float32}
        parts.append(pl.DataFrame(columns, schema=types))
    pl.concat(parts).write_parquet(folder / "labels.parquet")
    return folder


def test_patches_have_the_causes_of_the_object_that_they_lie_on(scenes: Path) -> None:
    patches = caused_patches(scenes / "labels.parquet", scenes / "index.parquet", 0.9)
    causes = pl.read_parquet(scenes / "pictures/causes.parquet")
    names = read_classes(scenes / "index.parquet")
    pure = pl.read_parquet(scenes / "labels.parquet").filter((pl.col("purity") >= 0.9) & (pl.col("label") < 9))
    assert patches.select("image_id", "token").equals(pure.select("image_id", "token"))
    assert patches["texture"].to_list() == [names[label] for label in pure["label"]]
    for row in patches.sample(50, seed=1).iter_rows(named=True):
        (cause,) = causes.filter(image_id=row["image_id"], texture=row["texture"]).iter_rows(named=True)
        assert (row["shape"], row["tint"]) == (cause["shape"], cause["tint"])
        down, across = row["place"].split()
        assert (down == "upper", across == "left") == (cause["centre_y"] < SIDE / 2, cause["centre_x"] < SIDE / 2)


def planted_codes(scenes: Path, folder: Path) -> Path:
    """Latent 0 is brick, 1 is star in both splits; 2 is red on train alone, 3 much of red everywhere; 4 is noise."""
    index = read_index(scenes / "index.parquet")
    patches = caused_patches(scenes / "labels.parquet", scenes / "index.parquet", 0.9)
    random = np.random.default_rng(3)
    on_train, red = pl.col("image_id") < SCENES.train, pl.col("tint") == "red"
    often, noise = (pl.Series(random.random(patches.height) < share) for share in (0.8, 0.3))
    active = [
        patches.filter(pl.col("texture") == "brick"),
        patches.filter(pl.col("shape") == "star"),
        patches.filter(on_train & red),
        patches.filter(red & often),
        patches.filter(noise),
    ]
    codes = pl.concat(
        part.select("image_id", "token", pl.lit(n, pl.Int32).alias("latent"), pl.lit(1.5, pl.Float32).alias("value"))
        for n, part in enumerate(active)
    )
    folder.mkdir()
    codes.write_parquet(folder / "shard-0.parquet")
    shard = {"file": "shard-0.parquet", "rows": codes.height, "bytes": (folder / "shard-0.parquet").stat().st_size}
    splits = {"train": [0, SCENES.train], "val": [SCENES.train, SCENES.train + SCENES.val]}
    record = {"format": FORMAT, "n_images": index.height, "n_tokens": index.height * 64, "width": 5}
    write_json(folder / "manifest.json", record | {"rows": codes.height, "splits": splits, "shards": [shard]})
    return folder / "manifest.json"


def test_planted_latents_are_chosen_on_train_and_measured_on_val(scenes: Path, tmp_path: Path, capsys) -> None:
    manifest = planted_codes(scenes, tmp_path / "codes")
    paths = scenes / "labels.parquet", scenes / "index.parquet", tmp_path / "causes.parquet"
    write_cause_scores(manifest, *paths, FeatureSettings())
    table = pl.read_parquet(tmp_path / "causes.parquet")
    brick, star, red = (
        table.row(by_predicate=pl.col("value") == name, named=True) for name in ("brick", "star", "red")
    )
    for row, latent in ((brick, 0), (star, 1)):
        assert [row[key] for key in ("latent", "auc_fit", "auc", "auc_low", "auc_high")] == [latent, 1, 1, 1, 1]
    # Perfect on the pictures that it was chosen on, silent on the others.
    assert [red[key] for key in ("latent", "auc_fit", "auc", "auc_low", "auc_high")] == [2, 1, 0.5, 0.5, 0.5]
    patches = caused_patches(*paths[:2], 0.9).filter(pl.col("image_id").is_between(40, 63))
    assert brick["n_patches"] == patches.filter(texture="brick").height
    for cause in CAUSES:
        values = table.filter((pl.col("cause") == cause) & (pl.col("value") != "mean"))
        assert set(values["value"]) == set(patches[cause])
        mean = table.row(by_predicate=(pl.col("cause") == cause) & (pl.col("value") == "mean"), named=True)
        assert mean["auc"] == pytest.approx(values["auc"].mean())
        assert mean["auc_low"] <= mean["auc"] <= mean["auc_high"]
    assert table["l0"].unique().to_list() == [read_json(manifest)["rows"] / read_json(manifest)["n_tokens"]]
    draw_tables("ground_truth", {"one": paths[2], "$two": paths[2]}, tmp_path / "drawn", FigureSettings(dpi=60))
    print_ground_truth(tmp_path / "drawn.csv")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    texture = table.row(by_predicate=(pl.col("cause") == "texture") & (pl.col("value") == "mean"), named=True)
    assert lines[3].startswith(f"| `$two` | 5 | {mean['l0']:.1f} | {texture['auc']:.3f} [{texture['auc_low']:.3f}, ")
    with Image.open(tmp_path / "drawn.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 1


def test_what_has_no_known_causes_is_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kind scenes only"):
        caused_patches(scenes / "labels.parquet", tmp_path / "index.parquet", 0.9)
    with pytest.raises(DataError, match="no such table; make it with: snakemake"):
        print_ground_truth(tmp_path / "none.csv")


@pytest.mark.slow
def test_a_trained_sae_tells_textures_that_an_untrained_one_and_neurons_do_not(tmp_path: Path) -> None:
    """The demo's network and its second-to-last block, on fewer pictures."""
    index, card, labels = (tmp_path / name for name in ("index.parquet", "model.json", "labels.parquet"))
    build_index(ScenesSettings(kind="scenes", train=100, val=50, test=1), index)
    model = ModelSettings(architecture="vit_small_patch14_dinov2", weights="embedded", workers=0)
    prepare_model(model.identity(), tmp_path / "weights.safetensors", card)
    write_patch_labels(index, card, 10, labels)
    store = tmp_path / "layer10/manifest.json"
    source = StoreSource(index, card, 1)
    extract_shard(model, source, 0, "10", [], store.with_name("receipt-0.json"), device="cpu")
    publish_store(model, source, "10", store, device="cpu")
    topk = TopKSettings(variant="topk", expansion=4, k=32, steps=80)
    dictionaries = {
        "trained": topk,
        "untrained": replace(topk, steps=0),
        "neurons": NeuronsSettings(variant="neurons", k=32),
    }
    found = {}
    for name, settings in dictionaries.items():
        folder = tmp_path / name
        train(settings, [store], folder, tmp_path / "work", device="cpu")
        encode_store(store, folder / "config.json", folder / "codes", device="cpu")
        paths = labels, index, folder / "causes.parquet"
        write_cause_scores(folder / "codes/manifest.json", *paths, FeatureSettings())
        (found[name],) = pl.read_parquet(paths[2]).filter(cause="texture", value="mean").iter_rows(named=True)
        assert found[name]["l0"] == pytest.approx(32, rel=1e-3)
    for name in ("untrained", "neurons"):
        assert found["trained"]["auc_low"] > found[name]["auc_high"], found
