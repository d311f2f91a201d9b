"""What segmentation experiments find where the truth is planted, and on a ViT with random weights."""

import json
from dataclasses import asdict, replace

import numpy as np
import polars as pl
import pytest
from planted_for_tests import (
    MIDDLE,
    N_CLASSES,
    N_FIT,
    PATCHES,
    SETTINGS,
    make_planted,
    run_segmentation,
)

from visae.config.interventions import ARMS
from visae.figures.class_strips import class_strips


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return make_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def arms(planted, tmp_path_factory):
    output = tmp_path_factory.mktemp("arms")
    summary = run_segmentation(planted, output)
    table = pl.read_parquet(output / "arms.parquet")
    return output, table.filter(edit="suppress"), summary


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
        values = table.filter(class_id=found["id"]).sort("dictionary")["effect"]
        p = (1 + (values[1:] >= values[0]).sum()) / (1 + SETTINGS.untrained)
        assert found["p_untrained"] == pytest.approx(p)
        assert found["q_untrained"] >= found["p_untrained"]
    called = [found["significant"] for found in summary["classes"]]
    assert summary["significant_share"] == pytest.approx(np.mean(called))


def test_latents_named_by_hand_are_an_arm_of_their_own(planted, tmp_path):
    settings = replace(SETTINGS, arms=["random_latent"], doses=[], untrained=0)
    summary = run_segmentation(planted, tmp_path, settings=settings, manual={"class 2": [11, 3]})
    table = pl.read_parquet(tmp_path / "arms.parquet").filter(edit="suppress")
    assert set(table["arm"]) == {"none", "random_latent", "manual", "automatic"}
    named = table.filter(arm="manual", size="natural", scale=-2.0, class_id=2).row(0, named=True)
    assert (named["latents"], named["target_change"]) == ([11, 3], 1.0)
    assert table.filter(arm="manual", class_id=1).is_empty()
    assert pl.read_parquet(tmp_path / "doses.parquet").is_empty()
    assert summary["significant_share"] is None


def test_several_latents_of_a_class_are_edited_together_and_pictures_can_be_few(planted, tmp_path):
    scores = pl.read_parquet(planted.folder / "scores.parquet")
    second = scores.with_columns(
        pl.lit(1, dtype=pl.Int16).alias("rank"), (pl.col("latent") - 10).cast(pl.Int32).alias("latent")
    )
    pl.concat([scores, second]).write_parquet(tmp_path / "scores.parquet")
    settings = replace(SETTINGS, latents_per_class=2, images=3, doses=[], untrained=0)
    run_segmentation(planted, tmp_path, settings=settings, scores=tmp_path / "scores.parquet")
    table = pl.read_parquet(tmp_path / "arms.parquet").filter(edit="suppress").filter(class_id=2, scale=-2.0)
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
    becomes = pl.read_parquet(output / "becomes.parquet").filter(edit="suppress")
    totals = becomes.group_by("arm", "size", "class_name", "scale").agg(pl.col("share").sum())
    np.testing.assert_allclose(totals["share"], 1)
    gone = becomes.filter(arm="automatic", class_name="class 2", scale=0.0)
    assert gone.select("class_name_after", "share").rows() == [("class 1", 1.0)]
    kept = becomes.filter(arm="none", class_name="class 2", scale=0.0)
    assert kept.select("class_name_after", "share").rows() == [("class 2", 1.0)]


def test_maps_show_the_edit(planted, arms):
    output, _, _ = arms
    maps = pl.read_parquet(output / "examples.parquet").filter(edit="suppress", size="natural")
    row = maps.filter(arm="automatic", class_id=3, scale=0.0).row(0, named=True)
    truth = planted.classes[row["image_id"]] + 1
    before, after = np.array(row["before"]), np.array(row["after"])
    assert row["edited"] == np.flatnonzero(truth == 3).tolist()
    assert (before[truth > 0] == truth[truth > 0]).all()
    assert (after[row["edited"]] == 1).all()
    assert maps.group_by("class_id", "arm", "scale").len()["len"].max() <= 3


def test_examples_of_segmentation_are_what_strips_show(planted, arms):
    output, _, _ = arms
    names = {1: "class 1", 2: "class 2", 3: "class 3", 9: "never"}
    examples = pl.read_parquet(output / "examples.parquet")
    strips = class_strips(examples, "patch", list(names.values()), names, {})
    shown = {strip.latents[0]: strip for strip in strips}[12]
    truth = planted.classes[shown.image_id] + 1
    assert list(shown.edited) == np.flatnonzero(truth == 3).tolist()
    edited = shown.outcome.filter(pl.col("token").is_in(list(shown.edited)))
    assert set(edited["before"]) == {"class 3"}
    assert set(edited["after"]) == {"class 1"}
    assert set(edited["control"]) == {"class 3"}
    assert shown.outcome["token"].to_list() == list(range(PATCHES))
    alone = examples.filter(arm="automatic")
    assert class_strips(alone, "patch", [], names, {})[0].outcome["control"].null_count() == PATCHES
    assert class_strips(alone.clear(), "patch", [], names, {}) == []


def test_no_edit_changes_exactly_nothing_in_a_network_that_goes_on(planted, tmp_path):
    """From the middle of a random network, where every edit spreads by attention."""
    run_segmentation(planted, tmp_path, layer=MIDDLE)
    table = pl.read_parquet(tmp_path / "arms.parquet").filter(edit="suppress")
    none = table.filter(arm="none")
    assert len(none) > 2
    for share in ("target_change", "other_change", "target_change_high", "other_change_high"):
        assert none[share].to_list() == [0.0] * len(none)
    assert table.filter(arm="automatic", scale=-2.0)["target_change"].max() > 0


def test_an_experiment_repeats_and_depends_on_its_seed(planted, arms, tmp_path):
    output, table, _ = arms
    run_segmentation(planted, tmp_path / "again")
    assert pl.read_parquet(tmp_path / "again/arms.parquet").filter(edit="suppress").equals(table)
    assert (tmp_path / "again/examples.parquet").read_bytes() == (output / "examples.parquet").read_bytes()
    run_segmentation(planted, tmp_path / "other", seed=1)
    assert not pl.read_parquet(tmp_path / "other/arms.parquet").filter(edit="suppress").equals(table)
