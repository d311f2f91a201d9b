"""config/paper.yaml over stub data: every layout is read, and a dry run lists every job; no model is downloaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Workflow
from PIL import Image

from visae.config.members import of_study
from visae.config.parse import load_config
from visae.config.stored import layers_of, members_of, used_datasets

pytestmark = pytest.mark.slow

ROOTS = ("IMAGENET", "INAT21", "CUB", "CALTECH101", "ADE20K")

# Prints what each job of the workflow asks for, with the resources that are given as of `--set-resources`.
RESOURCES = """
import sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.cli import parse_set_resources
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    workflow = api.workflow(
        resource_settings=ResourceSettings(cores=2, overwrite_resources=parse_set_resources(sys.argv[1:])),
        config_settings=ConfigSettings(configfiles=[Path("small.yaml")]),
        snakefile=Path("Snakefile"),
    )
    inner = workflow.dag(DAGSettings(targets={"all"})).workflow_api._workflow
    inner._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
    inner._build_dag()
    for job in inner.dag.jobs:
        print(job.rule.name, *(job.resources.get(name) for name in ("mem_mb", "runtime", "gpu")))
"""


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def stub_roots(folder: Path) -> None:
    """A few pictures of each data set, laid out as it is published."""
    for number in range(6):
        synset = f"n0{number % 2}"
        picture(folder / f"IMAGENET/train/{synset}/{synset}_{number}.JPEG", number)
        picture(folder / f"IMAGENET/val/ILSVRC2012_val_{number:08}.JPEG", 10 + number)
        for split in ("train", "val"):
            picture(folder / f"INAT21/{split}/{number:05}_Animalia/{split}{number}.jpg", 20 + number)
        picture(folder / f"ADE20K/images/training/ADE_train_{number:08}.jpg", 30 + number)
        picture(folder / f"ADE20K/images/validation/ADE_val_{number:08}.jpg", 40 + number)
    for mask in (folder / "ADE20K/images").rglob("*.jpg"):
        target = folder / "ADE20K/annotations" / mask.relative_to(folder / "ADE20K/images").with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.tile(np.arange(50, dtype=np.uint8) % 3, (40, 1))).save(target)
    classes = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.1\t5\t2\t1\twall", "2\t0.1\t5\t2\t1\tbuilding, edifice"]
    (folder / "ADE20K/objectInfo150.txt").write_text("\n".join(classes) + "\n")
    for number in range(60):
        name = ("BACKGROUND_Google", "accordion", "yin_yang")[number % 3]
        picture(folder / f"CALTECH101/{name}/image_{number:04}.jpg", 50 + number)
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    lists: dict[str, list[str]] = {
        "classes": [f"{number} {name}" for number, name in enumerate(names, start=1)],
        "images": [f"{number} {names[number % 2]}/bird_{number}.jpg" for number in range(1, 9)],
        "image_class_labels": [f"{number} {number % 2 + 1}" for number in range(1, 9)],
        "train_test_split": [f"{number} {int(number < 5)}" for number in range(1, 9)],
    }
    for line in lists["images"]:
        picture(folder / "CUB/images" / line.split(" ")[1], int(line.split(" ")[0]) + 200)
    for name, lines in lists.items():
        (folder / f"CUB/{name}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def paper(fresh: Workflow, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    data = tmp_path_factory.mktemp("data")
    stub_roots(data)
    for root in ROOTS:
        monkeypatch.setenv(root, str(data / root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (fresh.folder / "small.yaml").write_text((ROOT / "config/paper.yaml").read_text())
    return fresh


def expected() -> dict[str, int]:
    """Jobs by rule, from the configuration alone."""
    settings = load_config(ROOT / "config/paper.yaml")
    studies = settings.studies.values()
    stores = {
        (dataset, model): layers_of(settings, dataset, model)
        for dataset in used_datasets(settings)
        for model in settings.models
    }
    trained = {(study.train_on, study.model, study.point) for study in studies}
    described = {(*place, dataset) for study, place in _placed(studies) for dataset in study.describe}
    probed = {(study.model, study.classification) for study in studies}
    segmented = [study for study in studies if study.segmentation]
    masked = [(study, dataset) for study in studies for dataset in study.describe if dataset == "ade20k"]
    sheets = sum(len(study.describe) for study in studies)
    assert all(members_of(settings, study.train_on) == [study.train_on] for study in studies)
    return {
        "index": len(used_datasets(settings)),
        "model": len(settings.models),
        "extract": sum(settings.datasets[dataset].shards * len(layers) for (dataset, _), layers in stores.items()),
        "store": sum(map(len, stores.values())),
        # Of the layer that scores read, and of the head's.
        "patch_labels": 2 * len({study.model for study in segmented}),
        "train_sae": sum(
            len({name for study in studies if _place(study) == place for name in of_study(settings, study)})
            for place in trained
        ),
        "select_sae": len(trained),
        **dict.fromkeys(("encode", "statistics", "exemplars"), len(described)),
        "scores": len(masked),
        "image_scores": len(by_image := {(*place, study.classification) for study, place in _placed(studies)}),
        "purity": len(by_image | {(*_place(study), dataset) for study, dataset in masked}),
        "probe": len(probed),
        "segmentation_head": len({study.model for study in segmented}),
        "probabilities_figure": len(studies),
        "study": len(studies),
        "what_was_read": 1,
        "reading_sheet": sum(bool(layers) for layers in stores.values()),
        **dict.fromkeys(("training_figure", "pareto_figure"), len(studies)),
        **dict.fromkeys(("exemplar_figure", "exemplar_range_figure", "feature_map_figure"), sheets),
        **dict.fromkeys(("class_latents_figure", "score_nulls_figure"), len(masked)),
        "segmentation_maps_figure": len(segmented),
        **dict.fromkeys(("experiment", "arms_figure", "doses_figure", "strips_figure"), len(studies) + len(segmented)),
        **dict.fromkeys(("faithfulness", "faithfulness_figure", "calibration_figure"), len(studies)),
        "confusion_figure": len(studies) + len(segmented),
        "report": 1,
    }


def _place(study):
    return study.train_on, study.model, study.point


def _placed(studies):
    return [(study, _place(study)) for study in studies]


def test_a_dry_run_lists_every_job(paper: Workflow) -> None:
    jobs = paper.jobs("all")
    assert jobs == expected()
    # Four rates times three penalties, for both of CLIP's training sets, DINOv2 and BioCLIP.
    assert (jobs["train_sae"], jobs["select_sae"]) == (4 * 12, 4)
    assert not (paper.folder / "results").exists()


def test_resources_can_be_set_from_outside(paper: Workflow) -> None:
    changed = ["train_sae:mem_mb=64000", "train_sae:runtime=1234", "encode:mem_mb=12345"]
    done = paper.run("all", "--dry-run", "--quiet", "all", "--set-resources", *changed)
    assert done.returncode == 0, done.stdout + done.stderr
    # A dry run does not say what jobs ask for.
    command = [sys.executable, "-c", RESOURCES, *changed]
    listed = subprocess.run(command, cwd=paper.folder, capture_output=True, text=True, check=True).stdout.splitlines()
    assert listed.count("train_sae 64000 1234 1") == 48
    assert listed.count("encode 12345 240 1") == expected()["encode"]
    assert listed.count("extract 8000 240 1") == expected()["extract"]


def test_every_layout_is_read(paper: Workflow) -> None:
    done = paper.run("datasets")
    assert done.returncode == 0, done.stdout + done.stderr
    summaries = paper.folder / "results/datasets"
    counted = {path.parent.name: json.loads(path.read_text())["n_images"] for path in summaries.glob("*/summary.json")}
    drawn = counted.pop("caltech101")
    assert sum(drawn.values()) == 60
    assert set(drawn) == {"train", "val"}
    assert counted.pop("cub") == {"train": 4, "val": 4}
    assert counted == {name: {"train": 6, "val": 6} for name in ("imagenet", "inat21", "ade20k")}
    ade20k = json.loads((summaries / "ade20k/summary.json").read_text())
    assert [entry["name"] for entry in ade20k["classes"]] == ["wall", "building, edifice"]
