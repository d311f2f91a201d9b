"""Whole experiments on a model whose truth is planted, and on a ViT with random weights."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from visae.activations.given import write_store
from visae.config.settings import InterventionSettings, ModelSettings
from visae.errors import DataError
from visae.features.codes import encode_store
from visae.interventions.arms import ARMS
from visae.interventions.classification import central_quarter, classification_edits
from visae.interventions.segmentation import segmentation_arms
from visae.interventions.targets import Target, image_aucs, largest_values, with_controls
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.relu import Relu
from visae.vision.model import ModelCard, prepare_model

N_CLASSES, N_FIT, N_MEASURE, PATCHES, WIDTH = 3, 12, 9, 16, 24
LAST, MIDDLE = 5, 4
SETTINGS = InterventionSettings(scales=[-2.0, 0.0], bootstrap=50, batch_size=8, random_draws=2)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Patches that carry one orthogonal direction per class; latent 10 + c is that direction, class id c + 1.

    Every patch also has a weak common direction that the head reads as class 1, so a patch whose own
    direction is suppressed becomes class 1, and latents 0 to 9 are directions that no head reads.
    """
    folder = tmp_path_factory.mktemp("planted")
    settings = ModelSettings(architecture="test_vit", weights="random", image_size=64)
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
    card = ModelCard.read(folder / "model.json")
    d, n = card.layers[0].d_model, N_FIT + N_MEASURE
    rng = np.random.default_rng(1)
    # Orthonormal, and without a mean, so that the final norm only rescales.
    basis = np.linalg.qr(np.column_stack([np.ones(d), rng.normal(size=(d, WIDTH + 1))]))[0][:, 1:].T
    directions, common = basis[:WIDTH], basis[WIDTH]
    image_class = np.arange(n) % N_CLASSES
    # The picture's own class on 12 patches, the next one on 3; the last patch carries nothing.
    classes = np.full((n, PATCHES), -1)
    for i in range(n):
        place = rng.permutation(PATCHES - 1)
        classes[i, place[:12]], classes[i, place[12:]] = image_class[i], (image_class[i] + 1) % N_CLASSES
    tokens = np.zeros((n, 1 + PATCHES, d))
    for c in range(N_CLASSES):
        strength = np.where(image_class == c, 5, 3)[:, None] + rng.random((n, PATCHES))
        tokens[:, 1:] += np.where(classes == c, strength, 0)[..., None] * directions[10 + c]
    for latent in range(10):  # two of them are active on a patch, in the mean
        strength = np.where(rng.random((n, PATCHES, 1)) < 0.2, rng.uniform(1, 2, (n, PATCHES, 1)), 0)
        tokens[:, 1:] += strength * directions[latent]
    tokens += common
    manifest = write_store(
        folder / "store", tokens.astype(np.float32), card.tokens(0), {"train": N_FIT, "val": N_MEASURE}
    )

    sae = SparseAutoencoder(d, WIDTH, Relu())
    state = {name: torch.zeros_like(tensor) for name, tensor in sae.state_dict().items()}
    weights = torch.from_numpy(directions).float()
    bias = torch.full((WIDTH,), -1e-3)
    state |= {"encoder_weight": weights, "decoder_weight": weights, "encoder_bias": bias, "scale": torch.tensor(1.0)}
    sae.load_state_dict({name: state[name].clone() for name in sae.state_dict()})
    sae_config = save_sae(sae, folder / "sae")
    encode_store(manifest, sae_config, folder / "codes", "cpu")

    names = [{"id": c + 1, "name": f"class {c + 1}"} for c in range(N_CLASSES)] + [{"id": 9, "name": "never"}]
    head = folder / "head"
    head.mkdir()
    read = np.stack([*directions[10 : 10 + N_CLASSES], -10 * common])
    read[0] += 0.5 * common
    save_file({"weight": torch.from_numpy(read).float(), "bias": torch.zeros(4)}, head / "weights.safetensors")
    (head / "metrics.json").write_text(json.dumps({"classes": names, "n_prefix": 1, "grid": [4, 4]}))
    probe = folder / "probe"
    probe.mkdir()
    both = torch.from_numpy(np.concatenate([np.zeros_like(read[:3]), 3 * read[:3]], axis=1)).float().contiguous()
    save_file({"weight": both, "bias": torch.zeros(3)}, probe / "weights.safetensors")
    (probe / "metrics.json").write_text(json.dumps({"classes": names[:3], "n_prefix": 1, "pooling": "both"}))

    pl.DataFrame(
        {
            "image_id": pl.Series(np.repeat(np.arange(n), PATCHES), dtype=pl.Int32),
            "token": pl.Series(np.tile(np.arange(PATCHES), n), dtype=pl.Int16),
            "label": pl.Series((classes + 1).ravel(), dtype=pl.Int16),
            "purity": pl.Series(np.ones(n * PATCHES), dtype=pl.Float32),
        }
    ).write_parquet(folder / "patch_labels.parquet")
    pl.DataFrame(
        {
            "class_id": pl.Series([1, 2, 3, 9], dtype=pl.Int32),
            "class_name": [c["name"] for c in names],
            "rank": pl.Series([0] * 4, dtype=pl.Int16),
            "latent": pl.Series([10, 11, 12, None], dtype=pl.Int32),
            "f1_fit": [1.0, 1.0, 1.0, None],
        }
    ).write_parquet(folder / "scores.parquet")
    pl.DataFrame(
        {
            "image_id": pl.Series(range(n), dtype=pl.Int32),
            "path": [f"{i}.png" for i in range(n)],
            "split": ["train"] * N_FIT + ["val"] * N_MEASURE,
            "label": pl.Series(image_class + 1, dtype=pl.Int32),
            "label_name": [f"class {c + 1}" for c in image_class],
            "mask_path": pl.Series([None] * n, dtype=pl.String),
            "width": pl.Series([64] * n, dtype=pl.Int32),
            "height": pl.Series([64] * n, dtype=pl.Int32),
            "sha256": ["0"] * n,
        }
    ).write_parquet(folder / "index.parquet")
    (folder / "summary.json").write_text(json.dumps({"kind": "scenes", "classes": names}))
    paths = {"folder": folder, "manifest": manifest, "sae_config": sae_config}
    return SimpleNamespace(**paths, classes=classes, labels=image_class + 1)


def shared(planted, layer):
    f = planted.folder
    return {
        "manifest": planted.manifest,
        "layer": layer,
        "sae_config": planted.sae_config,
        "codes_manifest": f / "codes/manifest.json",
        "card_path": f / "model.json",
        "index_path": f / "index.parquet",
        "fit_split": "train",
        "measure_split": "val",
        "device": "cpu",
    }


def run_segmentation(planted, output, layer=LAST, seed=0):
    f = planted.folder
    own = {"scores": f / "scores.parquet", "patch_labels": f / "patch_labels.parquet"}
    own |= {"head_metrics": f / "head/metrics.json", "output": output, "seed": seed}
    return segmentation_arms(SETTINGS, **shared(planted, layer), **own)


def run_classification(planted, output, layer=LAST):
    own = {"probe_metrics": planted.folder / "probe/metrics.json", "output": output, "seed": 0}
    return classification_edits(SETTINGS, **shared(planted, layer), **own)


@pytest.fixture(scope="module")
def arms(planted, tmp_path_factory):
    output = tmp_path_factory.mktemp("arms")
    summary = run_segmentation(planted, output)
    return output, pl.read_parquet(output / "arms.parquet"), summary


@pytest.fixture(scope="module")
def edits(planted, tmp_path_factory):
    output = tmp_path_factory.mktemp("edits")
    summary = run_classification(planted, output)
    return output, pl.read_parquet(output / "edits.parquet"), summary


def test_the_planted_latent_takes_its_class_away_and_nothing_else(arms):
    _, table, _ = arms
    automatic = table.filter(pl.col("arm") == "automatic", pl.col("class_name") != "class 1")
    strong = automatic.filter(pl.col("scale") == -2.0)
    assert strong["target_change"].to_list() == [1.0] * 3  # the two classes, and the mean over all three
    assert strong["other_change"].to_list() == [0.0] * 3
    off = automatic.filter(pl.col("scale") == 0.0, pl.col("class_id").is_not_null())
    assert off["target_change"].to_list() == [1.0, 1.0]
    assert off["selectivity_low"].to_list() == [1.0, 1.0]
    assert automatic["latent"].drop_nulls().unique().sort().to_list() == [11, 12]


def test_controls_do_next_to_nothing_where_the_truth_is_planted(arms):
    _, table, _ = arms
    planted_classes = table.filter(pl.col("class_id") > 1)  # class 1 is also what a patch without any cause gives
    for arm in ("none", "reconstruction", "random_latent"):
        assert planted_classes.filter(arm=arm)["target_change"].to_list() == [0.0] * 4
    assert planted_classes.filter(arm="random_vector", scale=0.0)["target_change"].to_list() == [0.0] * 2
    assert table.filter(pl.col("arm") != "automatic")["latent"].null_count() == len(ARMS) * 8 - 8


def test_what_is_counted_is_what_was_planted(planted, arms):
    output, table, summary = arms
    measured = planted.classes[N_FIT:]
    for c in range(1, N_CLASSES):
        row = table.filter(arm="automatic", class_id=c + 1, scale=0.0).row(0, named=True)
        images = (measured == c).any(axis=1)
        assert row["n_target"] == (measured == c).sum()
        assert row["n_other"] == images.sum() * PATCHES - row["n_target"]
        assert row["n_images"] == images.sum()
    assert summary["not_measurable"] == [
        {"id": 9, "name": "never", "reason": "no latent was chosen for it on the fit split"}
    ]
    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary["provenance"]["settings"] == asdict(SETTINGS)


def test_the_mean_row_is_the_mean_over_classes(arms):
    _, table, _ = arms
    for (arm, scale), rows in table.group_by("arm", "scale"):
        mean = rows.filter(class_name="mean").row(0, named=True)
        classes = rows.filter(pl.col("class_name") != "mean")
        for share in ("target_change", "other_change", "selectivity"):
            assert mean[share] == pytest.approx(classes[share].mean()), (arm, scale)
            assert mean[f"{share}_low"] <= mean[share] <= mean[f"{share}_high"]


def test_suppressed_patches_become_what_is_left(arms):
    output, _, _ = arms
    becomes = pl.read_parquet(output / "becomes.parquet")
    totals = becomes.group_by("arm", "class_name", "scale").agg(pl.col("share").sum())
    np.testing.assert_allclose(totals["share"], 1)
    gone = becomes.filter(arm="automatic", class_name="class 2", scale=0.0)
    assert gone.select("class_name_after", "share").rows() == [("class 1", 1.0)]
    kept = becomes.filter(arm="none", class_name="class 2", scale=0.0)
    assert kept.select("class_name_after", "share").rows() == [("class 2", 1.0)]


def test_maps_show_the_edit(planted, arms):
    output, _, _ = arms
    maps = pl.read_parquet(output / "maps.parquet")
    row = maps.filter(arm="automatic", class_id=3, scale=0.0).row(0, named=True)
    truth = planted.classes[row["image_id"]] + 1
    before, after = np.array(row["before"]), np.array(row["after"])
    assert row["edited"] == np.flatnonzero(truth == 3).tolist()
    assert (before[truth > 0] == truth[truth > 0]).all()
    assert (after[row["edited"]] == 1).all()
    assert maps.group_by("class_id", "arm", "scale").len()["len"].max() <= 3


def test_no_edit_changes_exactly_nothing_in_a_network_that_goes_on(planted, tmp_path):
    """From the middle of a random network, where every edit spreads by attention."""
    run_segmentation(planted, tmp_path, layer=MIDDLE)
    table = pl.read_parquet(tmp_path / "arms.parquet")
    none = table.filter(arm="none")
    assert len(none) > 2
    for share in ("target_change", "other_change", "target_change_high", "other_change_high"):
        assert none[share].to_list() == [0.0] * len(none)
    assert table.filter(arm="automatic", scale=-2.0)["target_change"].max() > 0


def test_an_experiment_repeats_and_depends_on_its_seed(planted, arms, tmp_path):
    output, table, _ = arms
    run_segmentation(planted, tmp_path / "again")
    assert pl.read_parquet(tmp_path / "again/arms.parquet").equals(table)
    assert (tmp_path / "again/maps.parquet").read_bytes() == (output / "maps.parquet").read_bytes()
    run_segmentation(planted, tmp_path / "other", seed=1)
    assert not pl.read_parquet(tmp_path / "other/arms.parquet").equals(table)


def test_suppressing_the_planted_latent_takes_the_class_from_the_probe(edits):
    _, table, summary = edits
    assert [c["latent"] for c in summary["classes"]] == [10, 11, 12]
    for class_id in (1, 2, 3):
        row = table.filter(edit="suppress", arm="automatic", class_id=class_id, scale=-2.0).row(0, named=True)
        assert row["probability_before"] > 0.8
        assert row["probability_change"] < -0.7
        assert (row["accuracy_before"], row["accuracy_after"], row["flip_share"]) == (1.0, 0.0, 1.0)
        assert row["n_images"] == 3
        assert row["probability_change"] == pytest.approx(row["probability_after"] - row["probability_before"])
        random = table.filter(edit="suppress", arm="random_latent", class_id=class_id, scale=0.0).row(0, named=True)
        assert abs(random["probability_change"]) < 0.05


def test_inserting_the_planted_latent_raises_its_class(edits):
    _, table, _ = edits
    for class_id in (1, 2, 3):
        inserted = table.filter(edit="insert", arm="automatic", class_id=class_id).row(0, named=True)
        control = table.filter(edit="insert", arm="random_latent", class_id=class_id).row(0, named=True)
        assert inserted["probability_change_low"] > control["probability_change_high"]
        assert inserted["n_images"] == 6
        assert inserted["scale"] == SETTINGS.insert_scale


@pytest.mark.parametrize("layer", [MIDDLE, LAST])
def test_no_edit_leaves_every_probability(planted, tmp_path, layer):
    run_classification(planted, tmp_path, layer=layer)
    none = pl.read_parquet(tmp_path / "edits.parquet").filter(arm="none")
    for column in ("probability_change", "probability_change_low", "probability_change_high", "flip_share"):
        assert none[column].to_list() == [0.0] * len(none)
    examples = pl.read_parquet(tmp_path / "examples.parquet").filter(arm="none")
    assert examples["probability_before"].to_list() == examples["probability_after"].to_list()


def test_auc_is_scikit_learns(planted):
    labels = {i: int(planted.labels[i]) for i in range(N_FIT)}
    codes = pl.concat([pl.read_parquet(p) for p in sorted((planted.folder / "codes").glob("*.parquet"))])
    peaks = np.zeros((N_FIT, WIDTH))
    codes = codes.filter(pl.col("image_id") < N_FIT).select("image_id", "latent", "value")
    for image, latent, value in codes.iter_rows():
        peaks[image, latent] = max(peaks[image, latent], value)
    found = image_aucs(planted.folder / "codes/manifest.json", labels)
    assert len(found) > 20
    for class_id, latent, auc in found.iter_rows():
        expected = roc_auc_score(planted.labels[:N_FIT] == class_id, peaks[:, latent])
        assert auc == pytest.approx(expected), (class_id, latent)
    largest = largest_values(planted.folder / "codes/manifest.json", range(N_FIT))
    np.testing.assert_allclose([largest.get(k, 0) for k in range(WIDTH)], peaks.max(axis=0), rtol=1e-6)


def test_controls_are_no_classs_latent_and_do_not_depend_on_other_classes():
    largest = {k: 1.0 + k for k in range(20)}
    targets = [Target(1, "a", 3, 0.5), Target(2, "b", 4, 0.5)]
    drawn = with_controls(targets, largest, d_model=8, draws=5, seed=0, device=torch.device("cpu"))
    for target in targets:
        latents = drawn[target.class_id].latents
        assert latents[0] == target.latent
        assert len(set(latents)) == 6
        assert not {3, 4} & set(latents[1:])
        assert drawn[target.class_id].largest.tolist() == [1.0 + k for k in latents]
        torch.testing.assert_close(drawn[target.class_id].vectors.norm(dim=1), torch.ones(5))
    with pytest.raises(DataError, match="random_draws"):
        with_controls(targets, {3: 1.0, 4: 1.0, 5: 1.0}, d_model=8, draws=2, seed=0, device=torch.device("cpu"))


@pytest.mark.parametrize(("grid", "size"), [((16, 16), 64), ((4, 4), 4), ((1, 2), 1), ((7, 7), 9)])
def test_the_central_quarter_is_a_block_in_the_middle(grid, size):
    block = central_quarter(grid).view(grid)
    assert int(block.sum()) == size
    rows, columns = block.nonzero().T
    assert abs((rows.min() + rows.max()) / 2 - (grid[0] - 1) / 2) <= 0.5
    assert abs((columns.min() + columns.max()) / 2 - (grid[1] - 1) / 2) <= 0.5
