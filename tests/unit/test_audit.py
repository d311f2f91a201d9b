"""The audit confirms what latents mean, and nothing where they mean nothing; what cannot be tested is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from audit_for_tests import (
    CLASSES,
    N_FIT,
    N_IMAGES,
    N_MEANT,
    N_MEASURE,
    N_PATCHES,
    SETTINGS,
    WIDTH,
    plant,
    plant_scenes,
    run,
    write_codes,
    write_index,
    write_labels,
)
from sklearn.metrics import roc_auc_score

from visae.audit.audit import AuditFiles
from visae.audit.given import from_atlas, from_user
from visae.audit.held_out import ABSENT, EVERYWHERE, SILENT, UNKNOWN, permuted_aucs
from visae.audit.meanings import PATCH_CLASS, PICTURE_CLASS, Aspect, Found, Vocabulary
from visae.audit.proposals import _surprise
from visae.audit.results import SCHEMA, YIELDS
from visae.errors import DataError
from visae.features.concepts import Labels
from visae.features.ranking import Entries
from visae.files import file_sha256, write_json

NAMES = [CLASSES[1 + latent % 3] for latent in range(N_MEANT)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> AuditFiles:
    return plant(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def done(files: AuditFiles, tmp_path_factory: pytest.TempPathFactory):
    return run(files, tmp_path_factory.mktemp("done"))


@pytest.mark.parametrize("source", ["labels", "picture_labels", "exemplars"])
def test_planted_meanings_are_proposed_and_survive_and_few_others_do(done, source: str) -> None:
    table, yields, _ = done
    own = table.filter(source=source).sort("latent")
    meant = own.filter(pl.col("latent") < N_MEANT)
    assert meant["meaning"].to_list() == NAMES
    assert meant["survives"].all()
    assert (meant["rank"] == 0).all()
    assert (meant["auc_low"] <= meant["auc"]).all()
    assert (meant["auc"] <= meant["auc_high"]).all()
    # A false discovery rate of 5 % of a dozen true ones; twice that much by chance.
    assert own.filter(pl.col("latent") >= N_MEANT)["survives"].sum() <= 3
    row = yields.filter(source=source)
    assert row["n_survived"].item() == own["survives"].sum()
    assert row["survived"].item() == pytest.approx(own["survives"].sum() / own["survives"].is_not_null().sum())
    assert row["survived_low"].item() < row["survived"].item() < row["survived_high"].item()


def test_tables_have_their_columns_and_each_latent_one_proposal_a_source(done) -> None:
    table, yields, summary = done
    assert dict(table.schema) == SCHEMA
    assert dict(yields.schema) == YIELDS
    assert table.select("source", "latent").is_unique().all()
    assert WIDTH - 1 not in table["latent"]  # never active
    assert (table["q"] >= table["p"] - 1e-12).all()
    assert table["p"].min() == pytest.approx(summary["smallest_p"]) == 1 / 200


def test_where_nothing_means_anything_p_values_are_even(tmp_path: Path) -> None:
    """Patches of a picture hang together, which a test of single patches would take for evidence."""
    table, yields, _ = run(plant(tmp_path, seed=5, n_meant=0), tmp_path / "done")
    for source in ("labels", "picture_labels", "exemplars", "random"):
        p = table.filter(source=source)["p"].drop_nulls().to_numpy()
        # Three standard deviations of a share of so many tests.
        assert (p <= 0.1).mean() <= 0.1 + 3 * np.sqrt(0.09 / len(p))
        assert 0.5 - 3 * np.sqrt(1 / 12 / len(p)) <= p.mean() <= 0.5 + 3 * np.sqrt(1 / 12 / len(p)) + 0.05
    assert yields["n_survived"].sum() <= 2


def test_shuffled_proposals_do_not_survive(files: AuditFiles, tmp_path: Path) -> None:
    """Each latent is said to mean the class after its own."""
    lines = [f"{latent},{CLASSES[1 + (latent + 1) % 3]},shuffled" for latent in range(N_MEANT)]
    lines += [f"{latent},{name},right" for latent, name in enumerate(NAMES)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["latent,meaning,source", *lines]))
    _, yields, _ = run(files, tmp_path / "done", proposals=str(path))
    found = dict(yields.select("source", "survived").rows())
    assert (found["shuffled"], found["right"]) == (0, 1)


def test_a_latent_of_a_place_in_the_picture_is_no_latent_of_what_lies_there(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    labels = np.full((N_IMAGES, N_PATCHES), 2)
    labels[:, :6] = np.where(random.random((N_IMAGES, 6)) < 0.8, 1, 2)  # sky is above
    codes = np.zeros((N_IMAGES, N_PATCHES, 2), dtype=np.float32)
    codes[:, :6, 0] = 1 + random.random((N_IMAGES, 6))
    codes[..., 1] = (labels == 1) * (1 + random.random(labels.shape))
    write_codes(tmp_path, codes)
    write_index(tmp_path, None)
    write_labels(tmp_path, labels)
    files = AuditFiles(*(), codes=str(tmp_path / "manifest.json"), index=str(tmp_path / "index.parquet"))
    table, _, _ = run(files, tmp_path / "done", labels=str(tmp_path / "labels.parquet"))
    place, sky = table.filter(source="labels").sort("latent").rows(named=True)
    assert place["meaning"] == sky["meaning"] == "sky"
    assert place["auc"] > 0.8
    assert place["p"] > 0.05
    assert sky["survives"]


@pytest.mark.parametrize("decimals", [6, 1])
def test_areas_are_those_of_scikit_learn_whatever_ties_and_unlabelled_units_there_are(decimals: int) -> None:
    random = np.random.default_rng(decimals)
    classes = random.integers(-1, 3, (9, 7)).astype(np.int16)
    values = (random.random((9, 7)) * (random.random((9, 7)) < 0.6)).round(decimals).astype(np.float32)
    picture, token = np.nonzero(values)
    order = np.argsort(-values[picture, token], kind="stable")
    own = values[picture, token][order]
    codes = [array[order].astype(np.int32) for array in (picture, token)]
    entries = Entries(*codes, np.zeros(len(own), np.int32), own, 1)
    orders = np.stack([np.arange(9), random.permutation(9)]).astype(np.int32)
    found = permuted_aucs(entries, Labels(range(9), classes, 3), [1, 2], orders)
    for number, aucs in zip((1, 2), found, strict=True):
        for auc, moved in zip(aucs, orders, strict=True):
            known = classes[moved] >= 0
            assert auc == pytest.approx(roc_auc_score((classes[moved] == number)[known], values[known]), abs=1e-12)


def test_exemplars_of_what_is_everywhere_are_no_evidence() -> None:
    """Ten of ten patches of background, which most patches are, say less than eight of ten of brick."""
    shares, values = np.array([1.0, 0.8, 1.0, 0.7, 0.0]), np.array([0, 1, 1, 0, -1])
    found = _surprise(shares, values, np.array([80, 20]))
    by_hand = [np.log(1 / 0.8), 0.8 * np.log(0.8 / 0.2) + 0.2 * np.log(0.2 / 0.8), np.log(1 / 0.2), 0, 0]
    np.testing.assert_allclose(found, by_hand)


def test_what_cannot_be_tested_is_listed_with_its_reason(files: AuditFiles, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    said = ["0,Sky", "1,a feeling", "2,patch class: only in train", f"{WIDTH - 1},road", "3,picture class:  sky"]
    path.write_text("\n".join(["latent,meaning", *said]))
    table, yields, summary = run(files, tmp_path / "done", proposals=str(path))
    own = table.filter(source="user").sort("latent")
    assert own["not_testable"].to_list() == [None, UNKNOWN, ABSENT, None, SILENT]
    assert own["aspect"].to_list()[::3] == [PATCH_CLASS, PICTURE_CLASS]
    row = yields.filter(source="user")
    assert (row["n_proposed"].item(), row["n_tested"].item()) == (5, 2)
    listed = {entry["reason"]: entry for entry in summary["not_testable"]}
    assert listed[UNKNOWN] == {"reason": UNKNOWN, "n": 1, "examples": ["user: latent 1: a feeling"]}
    assert listed[SILENT]["n"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent,name\n1,sky\n", "column 'meaning' is missing; it has latent, name"),
        ("latent,meaning\n1,sky\n1,Sky\n", "line 3: latent 1: 'Sky' stands in line 2 already"),
        ("latent,meaning\n60,sky\n", "line 2: latent 60: this SAE has latents 0 to 59"),
        ("latent,meaning\none,sky\n", "line 2: latent 'one': write the latent's number"),
        ("latent,meaning\n1,\n", "line 2: latent 1 has no meaning"),
        ("latent,meaning,source\n1,sky,labels\n", "line 2: source 'labels' is one of visae's own"),
    ],
)
def test_a_wrong_file_of_proposals_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"mine.csv: {message}"):
        from_user(path, WIDTH, Vocabulary([]))


def test_names_are_proposals_as_far_as_they_name_classes(files: AuditFiles, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("latent,name,note\n0,SKY,\n1,sky,wrong\n5,something else,\n")
    table, _, _ = run(files, tmp_path / "done", names=str(path))
    own = table.filter(source="names").sort("latent")
    assert own["survives"].to_list() == [True, False, None]


def test_pictures_without_any_class_are_refused(files: AuditFiles, tmp_path: Path) -> None:
    plant(tmp_path, labelled=False)
    with pytest.raises(DataError, match="no classes, neither of their own nor of patches"):
        run(files, tmp_path / "done", index=str(tmp_path / "index.parquet"), labels="")


def test_a_missing_split_is_named(files: AuditFiles, tmp_path: Path) -> None:
    plant(tmp_path)
    record = (tmp_path / "manifest.json").read_text().replace('"val"', '"test"')
    (tmp_path / "manifest.json").write_text(record)
    with pytest.raises(DataError, match="has no split val, only train, test"):
        run(files, tmp_path / "done", codes=str(tmp_path / "manifest.json"))


def test_an_atlas_proposes_the_class_that_a_latent_supports_most_by_its_estimate(tmp_path: Path) -> None:
    rows = [("sky", 3, -0.2, 1, -0.3, None), ("road", 3, -0.5, 0, None, None), ("sky", 4, 0.9, 2, 0.9, True)]
    rows += [("tree", 5, -0.1, 3, -0.1, True), ("sky", 6, -0.1, None, -0.1, True)]
    columns = ["class_name", "latent", "estimate", "rank_estimate", "effect", "replicates"]
    unread = ("class_id", "rank_labels", "rank_random", "effect_low", "effect_high", "p", "verified")
    table = pl.DataFrame(rows, schema=columns, orient="row")
    table.with_columns(pl.lit(None).alias(name) for name in unread).write_parquet(tmp_path / "effects.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    inputs = {"manifest.json": file_sha256(tmp_path / "manifest.json")}
    write_json(tmp_path / "atlas.json", {"task": "segmentation", "layer": 10, "provenance": {"inputs": inputs}})
    codes = [str(tmp_path / "manifest.json")]
    aspects = [Aspect(PATCH_CLASS, "patches", ("sky", "road", "tree"), {})]
    found = from_atlas(tmp_path / "effects.parquet", codes, WIDTH, Vocabulary(aspects), {PATCH_CLASS})
    assert [(one.source, one.latent, one.found, one.replicates) for one in found] == [
        ("atlas_segmentation", 3, Found(PATCH_CLASS, 1), None),
        ("atlas_segmentation", 5, Found(PATCH_CLASS, 2), True),
    ]
    (tmp_path / "manifest.json").write_text("{ }")
    with pytest.raises(DataError, match=r"it was not made from .*manifest.json: it is of another SAE"):
        from_atlas(tmp_path / "effects.parquet", codes, WIDTH, Vocabulary(aspects), {PATCH_CLASS})
    table.write_parquet(tmp_path / "effects.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"no table of this version's atlas: class_id, .* is missing; make it again"):
        from_atlas(tmp_path / "effects.parquet", codes, WIDTH, Vocabulary(aspects), {PATCH_CLASS})


def test_the_budget_is_the_same_for_all_and_takes_the_surest(files: AuditFiles, tmp_path: Path) -> None:
    table, _, _ = run(files, tmp_path / "done", replace(SETTINGS, proposals=N_MEANT))
    counts = dict(table.group_by("source").len().rows())
    assert set(counts.values()) == {N_MEANT}
    assert table.filter(source="labels")["latent"].sort().to_list() == list(range(N_MEANT))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> AuditFiles:
    return plant_scenes(tmp_path_factory.mktemp("scenes"))


def test_causes_of_scenes_are_meanings_too(scenes: AuditFiles, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("latent,meaning\n0,shape: disk\n0,ring\n0,texture: sky\n1,tint: none\n")
    table, _, _ = run(scenes, tmp_path / "done", proposals=str(path))
    proposed = table.filter(source="causes").sort("latent")
    assert proposed["aspect"].to_list() == ["shape", "texture"]
    assert proposed["meaning"].to_list() == ["disk", CLASSES[1]]
    assert proposed["survives"].all()
    # All patches on objects have the one tint that there is.
    own = table.filter(source="user")
    assert own["survives"].to_list() == [True, False, False, None]
    assert own["not_testable"][3] == EVERYWHERE
    # Ranked among all values of all causes; four quarters are meanings as well.
    assert own["rank"][0] == 0
    assert own["n_meanings"][0] == 2 + 3 + 4


def test_the_same_seed_gives_the_same_tables(files: AuditFiles, done, tmp_path: Path) -> None:
    table, _, _ = run(files, tmp_path / "again")
    assert table.equals(done[0])


def test_pictures_are_drawn_where_there_are_too_many(files: AuditFiles, tmp_path: Path) -> None:
    _, _, summary = run(files, tmp_path / "done", replace(SETTINGS, pictures=30))
    assert summary["n_pictures"] == {"train": 30, "val": 30}
    assert N_FIT > 30 < N_MEASURE
