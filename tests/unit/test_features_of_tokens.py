"""What latents of class tokens and of all tokens are: codes, statistics, exemplars, scores and purity."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.config.settings import FeatureSettings
from visae.errors import StoreError
from visae.features.codes import read_codes_manifest, scan_codes
from visae.features.encoding import encode_store
from visae.features.exemplars import write_exemplars
from visae.features.image_scores import write_image_scores
from visae.features.monosemanticity import write_monosemanticity
from visae.features.purity import write_purity
from visae.features.scores import write_scores
from visae.features.statistics import write_statistics
from visae.sae import Place, SparseAutoencoder, save_sae
from visae.sae.variants.topk import TopK

D, WIDTH, IMAGES, PATCHES = 10, 30, 40, 6
TOKENS = [-1, -2, *range(PATCHES)]
KINDS = ("patches", "class", "all")
OWN = {"patches": slice(2, None), "class": slice(0, 1), "all": slice(None)}
SETTINGS = FeatureSettings(exemplars=4, permutations=19, purity_at=5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store, an SAE of each kind of tokens under per_token, its codes, an index and labels of patches."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(IMAGES, len(TOKENS), D)).astype(np.float32) * 4 + 2
    label = 1 + np.arange(IMAGES) % 2
    rows[:, 0, 0] += 25 * (label - 1)
    splits = {"train": 24, "val": 16}
    store = write_store(folder / "store", rows, TOKENS, splits, grid=(2, 3))
    index = {
        "image_id": pl.Series(range(IMAGES), dtype=pl.Int32),
        "path": [f"{number}.png" for number in range(IMAGES)],
        "label": pl.Series(label, dtype=pl.Int32),
        "label_name": [f"class {number}" for number in label],
        "split": ["train"] * 24 + ["val"] * 16,
        "mask_path": pl.Series([None] * IMAGES, dtype=pl.String),
        "width": pl.Series([64] * IMAGES, dtype=pl.Int32),
        "height": pl.Series([64] * IMAGES, dtype=pl.Int32),
        "sha256": ["0"] * IMAGES,
    }
    pl.DataFrame(index).write_parquet(folder / "index.parquet")
    classes = [{"id": number, "name": f"class {number}"} for number in (1, 2)]
    (folder / "summary.json").write_text(json.dumps({"kind": "folders", "classes": classes}))
    patches = {
        "image_id": pl.Series(np.repeat(np.arange(IMAGES), PATCHES), dtype=pl.Int32),
        "token": pl.Series(np.tile(np.arange(PATCHES), IMAGES), dtype=pl.Int16),
        "label": pl.Series(np.repeat(label, PATCHES), dtype=pl.Int16),
        "purity": pl.Series(np.ones(IMAGES * PATCHES), dtype=pl.Float32),
    }
    pl.DataFrame(patches).write_parquet(folder / "labels.parquet")
    saes = {}
    generator = torch.Generator().manual_seed(1)
    weights = torch.nn.functional.normalize(torch.randn(WIDTH, D, generator=generator))
    weights[0] = torch.eye(D)[0]
    for kinds in KINDS:
        sae = SparseAutoencoder(D, WIDTH, TopK(5), normalization="per_token")
        sae.weights.encoder.copy_(weights)
        sae.weights.decoder.copy_(weights)
        sae.place = Place(tokens=kinds)
        saes[kinds] = sae.requires_grad_(False)
        save_sae(sae, folder / kinds)
        encode_store(store, folder / kinds / "config.json", folder / kinds / "codes", "cpu")
    return folder, ActivationStore.open(store), saes


def codes_of(folder, kinds):
    return folder / kinds / "codes/manifest.json"


@pytest.mark.parametrize("kinds", KINDS)
def test_codes_are_read_of_the_tokens_that_the_sae_was_trained_on(world, kinds):
    folder, store, saes = world
    record = read_codes_manifest(codes_of(folder, kinds))
    own = np.array(TOKENS)[OWN[kinds]]
    assert (record["tokens"], record["n_tokens"]) == (kinds, IMAGES * len(own))
    dense = saes[kinds].encode(store.read(range(IMAGES), "all")).numpy()[:, OWN[kinds]]
    image, place, latent = np.nonzero(dense)
    frame = scan_codes(codes_of(folder, kinds)).collect().sort("image_id", "token", "latent")
    by_token = np.lexsort((latent, own[place], image))
    assert frame["token"].to_list() == own[place][by_token].tolist()
    assert frame["latent"].to_list() == latent[by_token].tolist()
    np.testing.assert_allclose(frame["value"], dense[image, place, latent][by_token], rtol=1e-4, atol=1e-5)


def test_codes_of_class_tokens_are_not_asked_of_patches(world, tmp_path):
    folder, _, _ = world
    with pytest.raises(StoreError, match="codes of class tokens, which say nothing of patches"):
        scan_codes(codes_of(folder, "class"), "patches")
    paths = codes_of(folder, "class"), folder / "labels.parquet", folder / "index.parquet"
    with pytest.raises(StoreError, match="codes of class tokens, which say nothing of patches"):
        write_scores(*paths, tmp_path / "scores.parquet", SETTINGS)
    with pytest.raises(StoreError, match="codes of class tokens, which say nothing of patches"):
        write_purity(paths[0], paths[2], tmp_path / "purity.parquet", SETTINGS, paths[1])


@pytest.mark.parametrize("kinds", KINDS)
def test_statistics_count_own_tokens(world, kinds, tmp_path):
    folder, store, saes = world
    files = codes_of(folder, kinds), folder / kinds / "config.json", folder / "index.parquet"
    write_statistics(*files, tmp_path / "stats.parquet", SETTINGS, patch_labels=folder / "labels.parquet")
    table = pl.read_parquet(tmp_path / "stats.parquet")
    dense = saes[kinds].encode(store.read(range(IMAGES), "all")).numpy()[:, OWN[kinds]]
    active = dense > 0
    np.testing.assert_allclose(table["frequency"], active.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_array_equal(table["images"], active.any(axis=1).sum(axis=0))
    share = active.sum(axis=0) / np.maximum(active.sum(axis=(0, 1)), 1)
    entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=0)
    alive = ~table["dead"].to_numpy()
    np.testing.assert_allclose(table["spatial_entropy"].to_numpy()[alive], entropy[alive], atol=1e-5)
    assert ("tokens" in table.columns) == (kinds != "patches")
    if kinds == "class":
        assert set(table.filter(~pl.col("dead"))["class_share"]) == {1.0}
        assert set(table["tokens"]) == {"class"}
        # Latent 0 is what class 2 adds to class tokens.
        assert table.filter(latent=0)["top_labels"].to_list()[0][0] == "class 2"


@pytest.mark.parametrize("kinds", KINDS)
def test_exemplars_are_the_strongest_of_own_tokens(world, kinds, tmp_path):
    folder, store, saes = world
    write_exemplars(codes_of(folder, kinds), folder / "index.parquet", tmp_path / "exemplars.parquet", SETTINGS)
    table = pl.read_parquet(tmp_path / "exemplars.parquet").filter(kind="top")
    own = np.array(TOKENS)[OWN[kinds]]
    dense = saes[kinds].encode(store.read(range(IMAGES), "all")).numpy()[:, OWN[kinds]]
    for row in table.iter_rows(named=True):
        values = dense[row["image_id"], :, row["latent"]]
        assert row["value"] == pytest.approx(values.max(), rel=1e-5)
        assert row["token"] == own[values.argmax()]
        assert sorted(row["tokens"]) == sorted(own[values > 0].tolist())
    if kinds == "class":
        assert set(table.filter(latent=0)["image_id"] % 2) == {1}


def test_latents_of_class_tokens_are_scored_by_pictures(world, tmp_path):
    folder, _, _ = world
    files = codes_of(folder, "class"), folder / "index.parquet"
    write_image_scores(*files, tmp_path / "scores.parquet", SETTINGS)
    best = pl.read_parquet(tmp_path / "scores.parquet").filter(pooling="max", class_name="class 2", rank=0)
    assert best["latent"].item() == 0
    assert best["auc"].item() > 0.9
    write_purity(*files, tmp_path / "purity.parquet", SETTINGS)
    pure = pl.read_parquet(tmp_path / "purity.parquet").filter(latent=0)
    assert (pure["class_name"].item(), pure["purity"].item()) == ("class 2", 1)
    manifest = folder / "store/manifest.json"
    write_monosemanticity(*files, tmp_path / "alike.parquet", SETTINGS, manifest, device="cpu")
    assert pl.read_parquet(tmp_path / "alike.parquet").height == WIDTH


def test_scores_of_patches_leave_class_tokens_out(world, tmp_path):
    """An SAE of all tokens is asked about patches at patches alone: token -1 is not the last patch."""
    folder, _, _ = world
    found = {}
    for kinds in ("patches", "all"):
        files = codes_of(folder, kinds), folder / "labels.parquet", folder / "index.parquet"
        write_scores(*files, tmp_path / f"{kinds}.parquet", SETTINGS)
        write_purity(files[0], files[2], tmp_path / f"{kinds}-purity.parquet", SETTINGS, files[1])
        found[kinds] = [pl.read_parquet(tmp_path / f"{kinds}{end}.parquet") for end in ("", "-purity")]
    for one, other in zip(*found.values(), strict=True):
        assert one.equals(other)
