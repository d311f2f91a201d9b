"""A study with SAEs of class tokens and of all tokens, standardized by themselves, from pictures to the report."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import SMALL, Workflow, checkout
from PIL import Image

from visae.errors import DataError
from visae.sae import Place
from visae.study import Study

pytestmark = pytest.mark.slow

BASE = {**SMALL["saes"]["topk"], "normalization": "per_token"}
SAES = {
    "class-tokens": {**BASE, "tokens": "class", "batch_size": 64, "expansion": 2},
    "all-tokens": {**BASE, "tokens": "all"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = checkout(tmp_path_factory.mktemp("kinds"))
    study = {**SMALL["studies"]["small"], "saes": list(SAES)}
    workflow.configure({**SMALL, "saes": SAES, "studies": {"small": study}})
    ran = workflow.run("all")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return workflow


@pytest.fixture(scope="module")
def study(done: Workflow) -> Study:
    return Study.open(done.folder / "results", "small", "cpu")


def test_each_sae_says_where_it_belongs(study: Study) -> None:
    for name, tokens in (("class-tokens", "class"), ("all-tokens", "all")):
        sae, card = study.sae(name), study.card
        assert sae.place == Place(card.architecture, card.weights_sha256, 10, "residual", tokens)
        assert sae.normalization == "per_token"


def test_what_asks_of_patches_is_made_for_those_that_have_some(study: Study) -> None:
    there = {}
    for name in SAES:
        folder = study.features(name, "scenes").files.folder
        there[name] = {path.name for path in folder.glob("*.parquet")}
    both = {"stats.parquet", "exemplars.parquet", "image_scores.parquet", "purity.parquet"}
    assert there["class-tokens"] == both
    assert there["all-tokens"] == both | {"scores.parquet", "causes.parquet"}


def test_latents_of_class_tokens_are_shown_as_pictures(study: Study) -> None:
    features = study.features("class-tokens", "scenes")
    stats = features.table
    n_images = study.index("scenes").height
    alive = stats.filter(pl.col("count") > 0)
    assert set(alive["class_share"]) == {1.0}
    assert alive["images"].to_list() == alive["count"].to_list()
    assert stats["frequency"].max() <= 1
    assert (stats["count"] <= n_images).all()
    assert set(features.exemplars()["token"]) == {-1}
    latent = alive.sort("max", descending=True)["latent"][0]
    sides = {crop.shape[:2] for crop in features.crops(latent, 2)}
    assert all(height >= SMALL["models"]["tiny"]["image_size"] for height, _ in sides)


def test_edits_move_what_the_sae_is_of(study: Study) -> None:
    for name in SAES:
        for task in ("classification", "segmentation"):
            summary, arms = study.summary(name, task), study.table(name, task, "arms")
            assert arms.height
            assert summary["classes"]
            edited = study.table(name, task, "examples").filter(edit="suppress")["edited"].explode().drop_nulls()
            if name == "class-tokens":
                assert set(edited) == {-1}
                if task == "segmentation":
                    assert {entry["chosen_by"] for entry in summary["classes"]} == {"gradient"}
            else:
                assert edited.max() > 0
    nothing = study.table("class-tokens", "classification", "arms").filter(arm="none")
    assert (nothing["target_change"] == 0).all()
    moved = study.table("class-tokens", "classification", "arms").filter(arm="automatic", edit="suppress")
    assert (moved["mass_moved"] > 0).any()


def test_one_picture_is_edited_at_its_class_token(study: Study) -> None:
    features = study.features("class-tokens", "scenes")
    latent = features.select(by="frequency")["latent"][0]
    edited = features.edit(0, latent, dose=-4.0, device="cpu")
    assert edited.tokens == (-1,)
    assert not edited.inside.any()
    assert (edited.table["before"] != edited.table["after"]).any()
    assert "on the class token" in edited.strip_table()["title"][0]


def test_no_region_is_asked_of_a_class_token(study: Study) -> None:
    features = study.features("class-tokens", "scenes")
    latent = features.select(by="frequency")["latent"][0]
    for place in ({"patches": [1]}, {"box": [0, 0, 1, 1]}, {"predicted": "brick"}):
        with pytest.raises(DataError, match=f"edit: {next(iter(place))}: latents of class tokens lie on no patch"):
            features.edit(0, latent, device="cpu", **place)
    with pytest.raises(DataError, match=r"latents of class tokens, which lie in no region; image_scores\.parquet has"):
        features.query(0, patches=[1])
    everywhere = study.features("all-tokens", "scenes")
    latent = everywhere.select(by="frequency")["latent"][0]
    assert everywhere.edit(0, latent, device="cpu", patches=[1, 2]).tokens == (1, 2)
    assert len(everywhere.edit(0, latent, device="cpu").tokens) > 1
    assert everywhere.query(0, patches=[1, 2]).table.height


def test_faithfulness_replaces_what_the_sae_is_of(done: Workflow) -> None:
    folder = done.folder / "results" / "interventions/small"
    found = {name: json.loads((folder / name / "faithfulness.json").read_text())["measures"] for name in SAES}
    changed = {name: found[name]["accuracy"]["zero"]["value"] for name in SAES}
    assert all(0 <= value <= 1 for value in changed.values())


def test_figures_are_drawn(done: Workflow) -> None:
    for name in SAES:
        for figure in ("scenes/exemplars", "scenes/exemplar_range", "classification_strips", "segmentation_strips"):
            path = done.folder / "results" / f"figures/small/{name}/{figure}.png"
            assert min(Image.open(path).size) > 50
    assert done.jobs("all") == {}
