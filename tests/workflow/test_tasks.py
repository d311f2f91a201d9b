"""Studies whose readouts are files: the recommender as it is published, class vectors beside a CLIP-like model."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from conftest import ROOT, SMALL, Workflow, checkout
from safetensors.torch import load_file, save_file

from visae.config.parse import parse_config
from visae.data.textures import TEXTURES
from visae.headline import study_headline
from visae.study import Study

pytestmark = pytest.mark.slow

TABLES = ("arms", "becomes", "doses", "untrained", "examples")


def finished(workflow: Workflow) -> Workflow:
    ran = workflow.run("all")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return workflow


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = checkout(tmp_path_factory.mktemp("recommender"))
    workflow.configure(yaml.safe_load((ROOT / "config/recommender.yaml").read_text()) | {"device": "cpu"})
    return finished(workflow)


@pytest.fixture(scope="module")
def zero_shot(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = checkout(tmp_path_factory.mktemp("zero"))
    vectors = torch.randn(len(TEXTURES), 512, generator=torch.manual_seed(0))
    save_file({"vectors": vectors}, workflow.folder / "vectors.safetensors", {"names": json.dumps(list(TEXTURES))})
    study = {
        "model": "clip",
        "layer": 10,
        "train_on": "scenes",
        "saes": ["topk"],
        "describe": ["scenes"],
        "zero_shot": {"dataset": "scenes", "vectors": "vectors.safetensors"},
    }
    clip = {"architecture": "vit_pe_core_tiny_patch16_384.fb", "weights": "random", "image_size": 64, "workers": 0}
    workflow.configure({**SMALL, "models": {"clip": clip}, "studies": {"texts": study}})
    return finished(workflow)


def opened(workflow: Workflow, results: str, name: str) -> Study:
    return Study.open(workflow.folder / results, name, "cpu")


def test_editing_a_tastes_latent_moves_its_items_and_leaves_the_others(recommender: Workflow) -> None:
    study = opened(recommender, "results/recommender", "recommender")
    arms, summary = study.table("topk", "readout", "arms"), study.summary("topk", "readout")
    assert summary["not_measurable"] == []
    gone = arms.filter(edit="suppress", scale=0.0, class_name="mean")
    own = gone.filter(arm="automatic").row(0, named=True)
    assert own["target_change_low"] > 0.8
    assert own["other_change_high"] < 0.1
    for arm in ("random_latent", "frequency_matched", "random_vector", "neuron"):
        control = gone.filter(arm=arm, size="matched").row(0, named=True)
        assert control["selectivity_high"] < own["selectivity_low"], arm
    inserted = arms.filter(edit="insert", class_name="mean", arm="automatic").row(0, named=True)
    assert inserted["target_change_low"] > 0.5
    assert summary["significant_share"] == 1


def test_the_chosen_latents_are_the_planted_tastes(recommender: Workflow) -> None:
    study = opened(recommender, "results/recommender", "recommender")
    tastes = load_file(recommender.folder / "results/recommender/datasets/users/truth.safetensors")["tastes"]
    cosines = torch.nn.functional.normalize(study.sae("topk").decoder_weight, dim=1) @ tastes.T
    for found in study.summary("topk", "readout")["classes"]:
        taste = int(found["name"].removeprefix("taste ")) - 1
        assert cosines[found["latents"][0], taste] > 0.95
        assert cosines[:, taste].argmax() == found["latents"][0]


def test_a_given_sets_figures_are_those_without_pictures(recommender: Workflow) -> None:
    figures = recommender.folder / "results/recommender/figures/recommender"
    drawn = {path.relative_to(figures).as_posix() for path in figures.rglob("*.png")}
    topk = {f"topk/{name}.png" for name in ("readout_arms", "readout_doses", "faithfulness", "users/feature_map")}
    assert drawn == {"training.png", *topk}
    assert (recommender.folder / "results/recommender/report.html").is_file()
    assert recommender.jobs("all") == {}


def test_the_headline_says_what_the_edit_did(recommender: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recommender.folder)
    settings = parse_config(yaml.safe_load(Path("small.yaml").read_text()))
    said = "\n".join(study_headline(settings, "recommender", settings.studies["recommender"]))
    assert "readout, latents of topk: share of answers that change" in said
    assert "suppress automatic" in said
    assert "insert automatic" in said
    assert "readout_kept" in said


def test_other_users_are_other_results(recommender: Workflow) -> None:
    config = recommender.folder / "small.yaml"
    text = config.read_text()
    try:
        config.write_text(text.replace("kind: users", "kind: users\n    tastes: 3"))
        jobs = recommender.jobs("all")
        assert {"users", "adopt", "train_sae", "experiment", "faithfulness"} <= set(jobs)
        config.write_text(text.replace("dataset: users", "dataset: users\n      first: 5"))
        assert {"experiment", "faithfulness"} <= set(recommender.jobs("all"))
        assert not {"users", "adopt", "train_sae"} & set(recommender.jobs("all"))
    finally:
        config.write_text(text)


def test_class_vectors_go_through_the_same_experiment(zero_shot: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(zero_shot.folder)
    study = opened(zero_shot, "results", "texts")
    tables = {name: study.table("topk", "zero_shot", name) for name in TABLES}
    arms = tables["arms"]
    assert set(arms["edit"]) == {"suppress", "insert"}
    assert arms.filter(arm="none")["probability_change"].drop_nulls().unique().to_list() == [0.0]
    assert len(tables["doses"]) > 0
    assert set(tables["untrained"]["dictionary"]) == {0, 1, 2}
    assert not (zero_shot.folder / "results/heads").exists()
    task = study.task("zero_shot")
    assert [c["name"] for c in task.classes] == list(TEXTURES)
    figures = zero_shot.folder / "results/figures/texts/topk"
    names = ("arms", "doses", "probabilities", "strips")
    assert all((figures / f"zero_shot_{name}.png").is_file() for name in names)
    measures = pl.read_parquet(zero_shot.folder / "results/interventions/texts/topk/faithfulness.parquet")["measure"]
    assert set(measures) == {"zero_shot_accuracy", "zero_shot_log_loss"}
    assert zero_shot.jobs("all") == {}


def test_class_vectors_of_another_projection_stop_the_experiment_by_name(zero_shot: Workflow) -> None:
    path = zero_shot.folder / "vectors.safetensors"
    before = path.read_bytes()
    try:
        save_file({"vectors": torch.randn(len(TEXTURES), 5)}, path, {"names": json.dumps(list(TEXTURES))})
        ran = zero_shot.run("interventions")
        assert ran.returncode != 0
        log = zero_shot.folder / "logs/results/interventions/texts/topk/zero_shot/summary.json.log"
        assert "class vectors of 5 values, but vit_pe_core_tiny" in log.read_text()
    finally:
        path.write_bytes(before)
