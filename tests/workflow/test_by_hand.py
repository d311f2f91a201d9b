"""Scripts run alone, outside Snakemake; errors that reach the user through it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, Workflow
from PIL import Image

pytestmark = pytest.mark.slow


def test_a_script_runs_alone_and_makes_the_same_file(finished: Workflow) -> None:
    target = "results/features/scenes/tiny/layer10/topk/scenes/exemplars.parquet"
    whole = (finished.folder / target).read_bytes()
    command = [sys.executable, "scripts/exemplars.py", target, "--configfile", "small.yaml"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (finished.folder / target).read_bytes() == whole


def test_a_script_says_when_no_rule_makes_the_target(finished: Workflow) -> None:
    command = [sys.executable, "scripts/exemplars.py", "results/nothing.txt", "--configfile", "small.yaml"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert "results/nothing.txt" in done.stderr


def test_the_headline_has_all_parts(finished: Workflow) -> None:
    command = [sys.executable, "-m", "visae", "headline", "--configfile", "small.yaml"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=True)
    for part in (
        "SAE topk: normalized MSE",
        "Linear probe: accuracy",
        "patch mIoU",
        "the reconstruction of topk recovers: ",
        "automatic",
        "results/report.html",
    ):
        assert part in done.stdout


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (40, 30), (number * 10, 0, 0)).save(root / name / f"{number}.png")
    return root


def failing(workflow: Workflow, root: Path, target: str, **dataset: object) -> str:
    values = {**SMALL, "datasets": {"mine": {"kind": "image_folder", "root": str(root), **dataset}}}
    study = {**SMALL["studies"]["small"], "train_on": "mine", "describe": ["mine"], "saes": ["topk"]}
    workflow.configure({**values, "studies": {"small": {**study, "classification": "mine", "segmentation": None}}})
    done = workflow.run(target)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "Traceback" not in said.split("RuleException")[0]
    return said


def test_a_missing_root_is_named(fresh: Workflow) -> None:
    assert "DataError: datasets: mine: root: " in failing(fresh, Path("${NO_SUCH_VARIABLE}/pictures"), "datasets")


def test_a_class_without_pictures_is_named(fresh: Workflow, pictures: Path) -> None:
    (pictures / "empty").mkdir()
    assert "empty" in failing(fresh, pictures, "datasets")


def test_too_many_unreadable_pictures_are_refused(fresh: Workflow, pictures: Path) -> None:
    (pictures / "cat" / "0.png").write_bytes(b"no picture")
    assert "max_unreadable" in failing(fresh, pictures, "datasets", max_unreadable=0)


def test_a_layer_that_the_model_has_not_is_named(fresh: Workflow) -> None:
    study = {**SMALL["studies"]["small"], "layer": 11, "head_layer": 12}
    fresh.configure({**SMALL, "studies": {"small": study}})
    done = fresh.run("activations")
    assert "12: vit_tiny_patch16_224 has 12 blocks, so layers go from 0 to 11" in done.stdout + done.stderr


def test_a_picture_that_went_bad_after_indexing_is_named(fresh: Workflow, pictures: Path) -> None:
    values = {**SMALL, "datasets": {"mine": {"kind": "image_folder", "root": str(pictures)}}}
    study = {**SMALL["studies"]["small"], "train_on": "mine", "describe": ["mine"], "classification": None}
    fresh.configure({**values, "studies": {"small": {**study, "segmentation": None}}})
    assert fresh.run("datasets").returncode == 0
    shutil.copy(pictures / "cat" / "1.png", pictures / "kept.png")
    (pictures / "dog" / "7.png").write_bytes((pictures / "kept.png").read_bytes()[:40])
    done = fresh.run("activations")
    assert done.returncode != 0
    assert "7.png" in done.stdout + done.stderr
    assert list(fresh.folder.glob("results/activations/**/*.parquet")) == []
