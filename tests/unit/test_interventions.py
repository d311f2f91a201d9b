"""Whole experiments on a model whose truth is planted, and on a ViT with random weights."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from visae.activations.given import write_store
from visae.config.settings import FigureSettings, InterventionSettings, ModelSettings
from visae.errors import DataError, ModelError
from visae.features.encoding import encode_store
from visae.figures import classification_edits as figure_of_edits
from visae.figures.class_strips import classification_strips, segmentation_strips
from visae.interventions.arms import ARMS
from visae.interventions.classification import central_quarter, classification_edits, picture_measures
from visae.interventions.segmentation import segmentation_arms
from visae.interventions.tables import ClassEdits, measures
from visae.interventions.targets import Activity, Target, drawn_controls, image_aucs, latent_activity
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.relu import Relu
from visae.vision.model import ModelCard, prepare_model

N_CLASSES, N_FIT, N_MEASURE, PATCHES, WIDTH = 3, 12, 9, 16, 24
LAST, MIDDLE = 5, 4
SETTINGS = InterventionSettings(
    scales=[-2.0, 0.0],
    insert_scale=4.0,
    bootstrap=50,
    batch_size=8,
    random_draws=2,
    doses=[-2.0, -0.5, 0.0, 1.0],
    dose_quantiles=[0.5],
    untrained=39,
    sample=4,
)


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


def run_segmentation(planted, output, layer=LAST, seed=0, settings=SETTINGS, **more):
    f = planted.folder
    own = {"scores": f / "scores.parquet", "patch_labels": f / "patch_labels.parquet"}
    own |= {"head_metrics": f / "head/metrics.json", "output": output, "seed": seed}
    return segmentation_arms(settings, **{**shared(planted, layer), **own, **more})


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
    assert strong["target_change"].to_list() == [1.0] * 4  # the two classes, and the mean and pool of all three
    assert strong["other_change"].to_list() == [0.0] * 4
    off = automatic.filter(pl.col("scale") == 0.0, pl.col("class_id").is_not_null())
    assert off["target_change"].to_list() == [1.0, 1.0]
    assert off["selectivity_low"].to_list() == [1.0, 1.0]
    assert automatic["latents"].drop_nulls().unique().sort().to_list() == [[11], [12]]


def test_controls_do_next_to_nothing_where_the_truth_is_planted(arms):
    _, table, _ = arms
    planted_classes = table.filter(pl.col("class_id") > 1)  # class 1 is also what a patch without any cause gives
    for arm in ("none", "reconstruction", "random_latent", "frequency_matched"):
        rows = planted_classes.filter(arm=arm, size="natural")
        assert rows["target_change"].to_list() == [0.0] * 4
    rows = planted_classes.filter(arm="random_vector", scale=0.0)
    assert rows["target_change"].to_list() == [0.0] * 4


def test_every_arm_is_run_at_every_size_and_scale_on_the_same_patches(arms):
    _, table, summary = arms
    sizes = {arm: ["natural"] if arm in ("none", "automatic") else ["matched", "natural"] for arm in ARMS}
    del sizes["manual"]
    assert {key[0]: sorted(rows["size"].unique()) for key, rows in table.group_by("arm")} == sizes
    for _, rows in table.group_by("class_name", "scale"):
        assert len(rows) == sum(len(found) for found in sizes.values())
        assert rows.select("n_target", "n_other", "n_images").n_unique() == 1
    assert all(c["arms_not_measurable"] == [] for c in summary["classes"])


def test_other_ways_of_choosing_find_the_planted_latents(arms):
    _, table, _ = arms
    for arm in ("latent_by_auc", "latent_by_gradient"):
        chosen = table.filter(arm=arm, size="natural", scale=0.0).drop_nulls("class_id").sort("class_id")
        assert chosen["latents"].to_list() == [[10], [11], [12]]
    # What the head reads of these classes are the planted directions, and so are the differences of their means.
    supervised = table.filter(pl.col("class_id") > 1, arm="head_weight", size="matched", scale=-2.0)
    assert supervised["target_change"].to_list() == [1.0, 1.0]
    assert table.filter(pl.col("class_id") > 1, arm="class_difference", size="matched")["target_change"].min() > 0.9


def test_paired_tests_tell_the_planted_latent_from_the_controls(arms):
    _, table, _ = arms
    classes = table.filter(pl.col("class_id") > 1, pl.col("scale") == -2.0)
    for arm in ("none", "random_vector", "random_latent", "frequency_matched"):
        found = classes.filter(arm=arm, size="natural")
        assert (found["p"] <= 0.05).all()
        assert (found["q"] >= found["p"]).all()
    # An arm that edits the very same is not beaten.
    same = classes.filter(arm="latent_by_auc")
    assert same["p"].to_list() == [1.0] * len(same)
    assert classes.filter(arm="automatic")["p"].null_count() == 2


def test_miou_falls_with_the_class(planted, arms):
    _, table, _ = arms
    rows = table.filter(class_name="class 2", scale=-2.0)
    assert rows.filter(arm="none")["miou_change"].to_list() == [0.0]
    row = rows.filter(arm="automatic").row(0, named=True)
    measured = planted.classes[N_FIT:]
    pictures = measured[(measured == 1).any(axis=1)]
    before, after = pictures.copy(), np.where(pictures == 1, 0, pictures)  # suppressed patches become class 1
    ious = [
        np.nanmean(
            [
                ((seen == c) & (pictures == c)).sum() / union
                if (union := (((seen == c) | (pictures == c)) & (pictures >= 0)).sum())
                else np.nan
                for c in range(N_CLASSES)
            ]
        )
        for seen in (before, after)
    ]
    assert row["miou_change"] == pytest.approx(ious[1] - ious[0])
    assert row["miou_change_low"] <= row["miou_change"] <= row["miou_change_high"] < 0


def test_doses_tell_when_the_planted_class_goes(planted, arms):
    output, _, summary = arms
    doses = pl.read_parquet(output / "doses.parquet")
    own = doses.filter(arm="automatic", class_name="class 2", unit="largest").sort("dose")
    assert own["dose"].to_list() == SETTINGS.doses
    assert own["target_change"].to_list() == [1.0, 1.0, 1.0, 0.0]
    assert own["n_images"].to_list() == [SETTINGS.sample] * 4
    median = doses.filter(arm="automatic", class_name="class 2", unit="quantile").row(0, named=True)
    codes = pl.concat([pl.read_parquet(p) for p in sorted((planted.folder / "codes").glob("*.parquet"))])
    values = codes.filter(pl.col("image_id") < N_FIT, latent=11)["value"]
    assert (median["dose"], median["scale"]) == (0.5, pytest.approx(values.median() / values.max(), rel=1e-5))
    assert median["target_change"] == 0.0  # the middle of what it naturally is
    # Patches without their class are shorter than most natural ones; those at twice minus its largest are longer.
    assert own["natural_norm_share"].to_list()[0] == 0.0
    assert own["natural_norm_share"].to_list()[2] == 1.0
    below = next(
        found
        for found in summary["responses"]
        if (found["arm"], found["class_name"], found["side"]) == ("automatic", "class 2", "below")
    )
    assert below["half_dose"] == 0.0
    assert below["monotonicity"] is None  # at 0 it is gone already
    mean = doses.filter(arm="automatic", class_name="mean", unit="largest").sort("dose")
    each = doses.filter(pl.col("class_id").is_not_null(), arm="automatic", dose=-2.0)
    assert mean["target_change"][0] == pytest.approx(each["target_change"].mean())


def test_planted_latents_do_more_than_those_of_untrained_dictionaries(arms):
    output, _, summary = arms
    table = pl.read_parquet(output / "untrained.parquet")
    assert table.group_by("class_id").len()["len"].to_list() == [1 + SETTINGS.untrained] * 3
    for found in summary["classes"][1:]:
        values = table.filter(class_id=found["id"]).sort("dictionary")["selectivity"]
        p = (1 + (values[1:] >= values[0]).sum()) / (1 + SETTINGS.untrained)
        assert found["p_untrained"] == pytest.approx(p)
        assert found["q_untrained"] >= found["p_untrained"]
    called = [found["significant"] for found in summary["classes"]]
    assert summary["significant_share"] == pytest.approx(np.mean(called))


def test_a_class_that_no_picture_has_is_not_measurable(planted, tmp_path):
    labels = pl.read_parquet(planted.folder / "patch_labels.parquet")
    of_measured = (pl.col("image_id") >= N_FIT) & (pl.col("label") == 2)
    labels.with_columns(pl.when(of_measured).then(0).otherwise("label").cast(pl.Int16).alias("label")).write_parquet(
        tmp_path / "labels.parquet"
    )
    summary = run_segmentation(planted, tmp_path, patch_labels=tmp_path / "labels.parquet")
    missing = {found["name"]: found["reason"] for found in summary["not_measurable"]}
    assert missing["class 2"] == "no patch of the measured split is labelled with it"
    for name in ("arms", "becomes", "doses", "untrained"):
        assert 2 not in pl.read_parquet(tmp_path / f"{name}.parquet")["class_id"].to_list()


def test_a_chosen_latent_that_never_fires_is_not_measurable(planted, tmp_path):
    scores = pl.read_parquet(planted.folder / "scores.parquet")
    silent = pl.when(pl.col("class_id") == 3).then(20).otherwise("latent").cast(pl.Int32).alias("latent")
    scores.with_columns(silent).write_parquet(tmp_path / "scores.parquet")
    summary = run_segmentation(planted, tmp_path, scores=tmp_path / "scores.parquet")
    missing = {found["name"]: found["reason"] for found in summary["not_measurable"]}
    assert missing["class 3"] == "no latent that is active on the selection split was chosen for it there"
    assert 3 not in pl.read_parquet(tmp_path / "arms.parquet")["class_id"].to_list()


@pytest.mark.parametrize(
    ("manual", "message"),
    [
        ({"class 1": [20]}, "latent 20 is never active"),
        ({"class 1": [WIDTH]}, f"latents 0 to {WIDTH - 1}"),
        ({"class 1": []}, f"latents 0 to {WIDTH - 1}"),
        ({"sky": [1]}, "'sky' is no class of the head"),
    ],
)
def test_latents_named_by_hand_have_to_be_there(planted, tmp_path, manual, message):
    with pytest.raises(DataError, match=message):
        run_segmentation(planted, tmp_path, manual=manual)


def test_latents_named_by_hand_are_an_arm_of_their_own(planted, tmp_path):
    settings = replace(SETTINGS, arms=["random_latent"], doses=[], untrained=0)
    summary = run_segmentation(planted, tmp_path, settings=settings, manual={"class 2": [11, 3]})
    table = pl.read_parquet(tmp_path / "arms.parquet")
    assert set(table["arm"]) == {"none", "random_latent", "manual", "automatic"}
    named = table.filter(arm="manual", size="natural", scale=-2.0, class_id=2).row(0, named=True)
    assert (named["latents"], named["target_change"]) == ([11, 3], 1.0)
    assert table.filter(arm="manual", class_id=1).is_empty()
    assert pl.read_parquet(tmp_path / "doses.parquet").is_empty()
    assert summary["significant_share"] is None


def test_a_head_of_another_model_is_refused(planted, tmp_path):
    (tmp_path / "metrics.json").write_bytes((planted.folder / "head/metrics.json").read_bytes())
    save_file({"weight": torch.zeros(4, 7), "bias": torch.zeros(4)}, tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match=r"reads 7 values .* it is the head of another model"):
        run_segmentation(planted, tmp_path, head_metrics=tmp_path / "metrics.json")


def test_several_latents_of_a_class_are_edited_together_and_pictures_can_be_few(planted, tmp_path):
    scores = pl.read_parquet(planted.folder / "scores.parquet")
    second = scores.with_columns(
        pl.lit(1, dtype=pl.Int16).alias("rank"), (pl.col("latent") - 10).cast(pl.Int32).alias("latent")
    )
    pl.concat([scores, second]).write_parquet(tmp_path / "scores.parquet")
    settings = replace(SETTINGS, latents_per_class=2, images=3, doses=[], untrained=0)
    run_segmentation(planted, tmp_path, settings=settings, scores=tmp_path / "scores.parquet")
    table = pl.read_parquet(tmp_path / "arms.parquet").filter(class_id=2, scale=-2.0)
    own = table.filter(arm="automatic").row(0, named=True)
    assert (own["latents"], own["target_change"], own["n_images"]) == ([11, 1], 1.0, 3)


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
        {"id": 9, "name": "never", "reason": "no latent that is active on the selection split was chosen for it there"}
    ]
    assert json.loads((output / "summary.json").read_text()) == summary
    assert summary["provenance"]["settings"] == asdict(SETTINGS)


def test_the_mean_row_is_the_mean_over_classes(arms):
    _, table, _ = arms
    for (arm, _size, scale), rows in table.group_by("arm", "size", "scale"):
        mean, pooled = (rows.filter(class_name=name).row(0, named=True) for name in ("mean", "pooled"))
        classes = rows.drop_nulls("class_id")
        weighted = (classes["target_change"] * classes["n_target"]).sum() / classes["n_target"].sum()
        assert pooled["target_change"] == pytest.approx(weighted)
        for share in ("target_change", "other_change", "selectivity"):
            assert mean[share] == pytest.approx(classes[share].mean()), (arm, scale)
            assert mean[f"{share}_low"] <= mean[share] <= mean[f"{share}_high"]


def test_suppressed_patches_become_what_is_left(arms):
    output, _, _ = arms
    becomes = pl.read_parquet(output / "becomes.parquet")
    totals = becomes.group_by("arm", "size", "class_name", "scale").agg(pl.col("share").sum())
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
    assert [c["latents"] for c in summary["classes"]] == [[10], [11], [12]]
    for class_id in (1, 2, 3):
        row = table.filter(edit="suppress", arm="automatic", class_id=class_id, scale=-2.0).row(0, named=True)
        assert row["probability_before"] > 0.8
        assert row["probability_change"] < -0.7
        assert (row["top1_before"], row["top1_after"]) == (1.0, 0.0)
        assert (row["n_images"], row["n_other"], row["latents"]) == (3, 6, [9 + class_id])
        assert row["mass_moved"] == pytest.approx(-row["probability_change"])
        assert row["selectivity"] == pytest.approx(-row["probability_change"] - row["other_mass_moved"])
        assert 0 < row["other_mass_moved"] < 0.3  # the class is on three patches of some other pictures
        assert row["other_accuracy_after"] == row["other_accuracy_before"] == 1.0
        assert row["probability_change"] == pytest.approx(row["probability_after"] - row["probability_before"])
        random = table.filter(edit="suppress", arm="random_latent", size="natural", class_id=class_id, scale=0.0)
        random = random.row(0, named=True)
        assert abs(random["probability_change"]) < 0.05


def test_inserting_the_planted_latent_raises_its_class(edits):
    _, table, _ = edits
    for class_id in (1, 2, 3):
        inserted = table.filter(edit="insert", arm="automatic", class_id=class_id).row(0, named=True)
        control = table.filter(edit="insert", arm="random_latent", size="matched", class_id=class_id).row(0, named=True)
        assert inserted["probability_change"] > 10 * max(control["probability_change"], 1e-6)
        assert inserted["n_images"] == 6
        assert inserted["scale"] == SETTINGS.insert_scale
        assert inserted["top1_before"] == 0.0


@pytest.mark.parametrize("layer", [MIDDLE, LAST])
def test_no_edit_leaves_every_probability(planted, tmp_path, layer):
    run_classification(planted, tmp_path, layer=layer)
    none = pl.read_parquet(tmp_path / "edits.parquet").filter(arm="none")
    for column in ("probability_change", "probability_change_low", "probability_change_high", "mass_moved"):
        assert none[column].to_list() == [0.0] * len(none)


def test_every_control_is_run_where_classes_are_suppressed_and_inserted(edits):
    _, table, _ = edits
    controls = set(ARMS) - {"none", "automatic", "manual", "latent_by_auc"}
    suppressed = table.filter(edit="suppress", class_id=2, scale=-2.0)
    assert set(suppressed.select("arm", "size").rows()) == (
        {(arm, size) for arm in controls for size in ("natural", "matched")}
        | {(a, "natural") for a in ("none", "automatic")}
    )
    inserted = table.filter(edit="insert", class_id=2)
    assert set(inserted.filter(pl.col("arm").is_in(list(controls)))["size"]) == {"matched"}
    by_gradient = table.filter(edit="suppress", arm="latent_by_gradient", size="natural", scale=0.0)
    assert by_gradient.drop_nulls("class_id")["latents"].to_list() == [[10], [11], [12]]
    random = table.filter(edit="suppress", class_name="mean", arm="random_latent", size="natural", scale=-2.0)
    assert random["p"].item() <= 0.05
    tested = table.drop_nulls("q")
    assert (tested["q"] >= tested["p"] - 1e-12).all()


def test_probability_that_a_class_loses_goes_to_named_classes(edits):
    output, table, _ = edits
    moved = pl.read_parquet(output / "moved.parquet")
    of_class = moved.filter(edit="suppress", arm="automatic", scale=-2.0, class_name="class 2")
    lost = table.filter(edit="suppress", arm="automatic", scale=-2.0, class_id=2)["probability_change"].item()
    assert of_class.filter(class_name_after="class 2")["probability_change"].item() == pytest.approx(lost)
    assert of_class["probability_change"].sum() == pytest.approx(0, abs=1e-6)
    assert of_class.sort("probability_change")["class_name_after"].to_list()[0] == "class 2"


def test_examples_of_classification_are_what_strips_show(planted, edits):
    output, _, _ = edits
    examples = pl.read_parquet(output / "examples.parquet")
    strips = classification_strips(examples, {11: "the planted one"})
    assert len(strips) == N_CLASSES
    shown = {strip.latents[0]: strip for strip in strips}[11]
    assert shown.title == "class 2: latent 11 “the planted one” set to −2 × its largest value on the outlined patches"
    assert list(shown.edited) == np.flatnonzero(planted.classes[shown.image_id] == 1).tolist()
    first = shown.outcome.row(0, named=True)
    assert first["class_name"] == "class 2"
    assert first["before"] > 0.8
    assert first["after"] < 0.1
    assert abs(first["control"] - first["before"]) < 0.5


def test_maps_of_segmentation_are_what_strips_show(planted, arms):
    output, table, _ = arms
    names = {1: "class 1", 2: "class 2", 3: "class 3", 9: "never"}
    strips = segmentation_strips(pl.read_parquet(output / "maps.parquet"), table, names, {})
    shown = {strip.latents[0]: strip for strip in strips}[12]
    truth = planted.classes[shown.image_id] + 1
    assert list(shown.edited) == np.flatnonzero(truth == 3).tolist()
    edited = shown.outcome.filter(pl.col("token").is_in(list(shown.edited)))
    assert set(edited["before"]) == {"class 3"}
    assert set(edited["after"]) == {"class 1"}
    assert set(edited["control"]) == {"class 3"}
    assert shown.outcome["token"].to_list() == list(range(PATCHES))
    alone = pl.read_parquet(output / "maps.parquet").filter(arm="automatic")
    assert segmentation_strips(alone, table, names, {})[0].outcome["control"].null_count() == PATCHES
    assert segmentation_strips(alone.clear(), table, names, {}) == []


def test_the_figure_of_classification_draws_the_means(edits):
    _, table, _ = edits
    figure = figure_of_edits.draw(figure_of_edits.data(table), FigureSettings())
    assert len(figure.axes) == 2 * 3  # two scales of suppression, and insertion
    mean = table.filter(edit="suppress", scale=-2.0, class_name="mean", size="natural")
    drawn = sorted(bar.get_width() for bar in figure.axes[0].patches)
    one_before = mean.filter(arm="none")["probability_before"].to_list() * mean.height
    np.testing.assert_allclose(drawn, sorted([*one_before, *mean["probability_after"]]))
    assert "−2 × its largest value" in figure.axes[0].get_title(loc="left")


def test_measures_of_classification_are_means_over_the_right_pictures():
    rng = np.random.default_rng(0)
    before, after = rng.dirichlet(np.ones(4), 6), rng.dirichlet(np.ones(4), 6)
    truth = torch.tensor([1, 1, 0, 2, 3, -1])
    values = picture_measures(torch.from_numpy(before), torch.from_numpy(after), 1, truth)
    own = np.array([True, True, False, False, False, False])
    key = ("automatic", "natural", 0.0)
    found = measures(ClassEdits(Target(5, "a", (0,), 1.0), "suppress", np.arange(6), own, {key: values}), key)
    moved = np.abs(after - before).sum(axis=1) / 2
    assert found["probability_change"] == pytest.approx((after - before)[:2, 1].mean())
    assert found["top1_after"] == pytest.approx((after[:2].argmax(axis=1) == 1).mean())
    assert found["other_mass_moved"] == pytest.approx(moved[2:].mean())
    assert found["other_accuracy_before"] == pytest.approx((before[2:].argmax(axis=1) == [0, 2, 3, -1]).mean())
    true = [after[2, 0] - before[2, 0], after[3, 2] - before[3, 2], after[4, 3] - before[4, 3], 0]
    assert found["other_probability_change"] == pytest.approx(np.mean(true))
    assert found["selectivity"] == pytest.approx(-(after - before)[:2, 1].mean() - moved[2:].mean())
    inserted = ClassEdits(Target(5, "a", (0,), 1.0), "insert", np.arange(6), np.ones(6, dtype=bool), {key: values})
    found = measures(inserted, key)
    assert found["probability_change"] == pytest.approx((after - before)[:, 1].mean())
    assert np.isnan(found["selectivity"])


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
    activity = latent_activity(planted.folder / "codes/manifest.json", range(N_FIT))
    np.testing.assert_allclose([activity.largest.get(k, 0) for k in range(WIDTH)], peaks.max(axis=0), rtol=1e-6)
    assert sum(activity.count.values()) == len(codes)


def test_controls_are_no_classs_latents_and_do_not_depend_on_other_classes():
    counts = {k: 2**k for k in range(40)}
    activity = Activity(counts, {k: 1.0 + k for k in range(40)})
    targets = [Target(1, "a", (3, 30), 0.5), Target(2, "b", (4,), 0.5)]
    drawn = drawn_controls(targets, activity, draws=5, seed=0)
    for target in targets:
        controls = drawn[target.class_id]
        for draws in (controls.random, controls.frequency_matched):
            assert [len(latents) for latents in draws] == [len(target.latents)] * 5
            used = [latent for latents in draws for latent in latents]
            assert len(set(used)) == len(used)
            assert not {3, 4, 30} & set(used)
    # Frequencies are powers of two, so the nearest in log frequency are the neighbours in number.
    assert all(latents[0] < 13 and abs(latents[1] - 30) < 7 for latents in drawn[1].frequency_matched)
    alone = drawn_controls([targets[0], Target(9, "c", (4,), 0.5)], activity, draws=5, seed=0)
    assert alone[1] == drawn[1]
    with pytest.raises(DataError, match="random_draws"):
        drawn_controls(targets, Activity({3: 1, 4: 1, 5: 1, 30: 1}, {}), draws=2, seed=0)


@pytest.mark.parametrize(("grid", "size"), [((16, 16), 64), ((4, 4), 4), ((1, 2), 1), ((7, 7), 9)])
def test_the_central_quarter_is_a_block_in_the_middle(grid, size):
    block = central_quarter(grid).view(grid)
    assert int(block.sum()) == size
    rows, columns = block.nonzero().T
    assert abs((rows.min() + rows.max()) / 2 - (grid[0] - 1) / 2) <= 0.5
    assert abs((columns.min() + columns.max()) / 2 - (grid[1] - 1) / 2) <= 0.5
