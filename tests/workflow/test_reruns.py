"""What runs again after a change: exactly what the change touches. By dry runs over a finished workflow."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import SMALL, Workflow
from PIL import Image

pytestmark = pytest.mark.slow

FEATURE_FIGURES = {
    "feature_map_figure": 1,
    "exemplar_figure": 1,
    "exemplar_range_figure": 1,
    "class_latents_figure": 1,
    "score_nulls_figure": 1,
}
PER_SAE = {
    "train_sae": 1,
    "encode": 1,
    "statistics": 1,
    "exemplars": 1,
    "scores": 1,
    "causes": 1,
    "image_scores": 1,
    "purity": 1,
    "experiment": 2,
    "faithfulness": 1,
    **FEATURE_FIGURES,
    "arms_figure": 2,
    "doses_figure": 2,
    "segmentation_maps_figure": 1,
    "probabilities_figure": 1,
    "faithfulness_figure": 1,
    "strips_figure": 2,
}
# Of the heads, which no SAE changes.
HEAD_FIGURES = {"confusion_figure": 2, "calibration_figure": 1}
SHARED_FIGURES = {"training_figure": 1, "ground_truth_figure": 1, "report": 1}


@pytest.fixture
def workflow(finished: Workflow) -> Iterator[Workflow]:
    yield finished
    finished.configure(SMALL)


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(SMALL)
    for section, entries in sections.items():
        part = values.setdefault(section, {})
        for name, entry in entries.items():
            part[name] = {**part[name], **entry} if isinstance(entry, dict) and name in part else entry
    return values


def test_a_finished_workflow_has_nothing_to_do(workflow: Workflow) -> None:
    assert workflow.jobs("all") == {}


def test_one_saes_setting_reruns_nothing_of_the_other(workflow: Workflow) -> None:
    workflow.configure(changed(saes={"relu": {"l1": 0.01}}))
    assert workflow.jobs("all") == {**PER_SAE, **SHARED_FIGURES}
    assert "Training SAE relu" in workflow.said
    assert "topk" not in "".join(line for line in workflow.said.splitlines() if line.startswith("Job "))


def test_swapped_values_are_noticed(workflow: Workflow) -> None:
    workflow.configure(changed(saes={"topk": {"k": 4, "auxk": 6}}))
    assert workflow.jobs("all") == {**PER_SAE, **SHARED_FIGURES}


def test_a_figures_setting_redraws_figures_and_the_report_alone(workflow: Workflow) -> None:
    workflow.configure(changed(figures={"dpi": 60}))
    figures = {rule: 2 * count for rule, count in PER_SAE.items() if rule.endswith("_figure")}
    assert workflow.jobs("all") == {**figures, **HEAD_FIGURES, **SHARED_FIGURES, "reading_sheet": 1}


def test_a_setting_of_scores_reruns_scores_and_what_reads_them_alone(workflow: Workflow) -> None:
    workflow.configure(changed(features={"permutations": 7}))
    jobs = workflow.jobs("all")
    assert jobs["scores"] == jobs["image_scores"] == jobs["purity"] == 2
    assert not {"encode", "statistics", "exemplars", "train_sae"} & jobs.keys()


def test_the_exemplar_sheets_setting_redraws_these_sheets_alone(workflow: Workflow) -> None:
    workflow.configure(changed(figures={"latents": 3}))
    assert workflow.jobs("all") == {"exemplar_figure": 2, "exemplar_range_figure": 2, "report": 1}


def test_a_new_layer_redoes_nothing_that_was_there(workflow: Workflow) -> None:
    study = {**SMALL["studies"]["small"], "layer": 5, "saes": ["topk"]}
    workflow.configure(changed(studies={"early": study}))
    expected = {"extract": 2, "store": 1, "patch_labels": 1, "study": 1}
    expected |= {**PER_SAE, **HEAD_FIGURES, **SHARED_FIGURES}
    assert workflow.jobs("all") == expected


def test_a_new_data_set_redoes_nothing_that_was_there(workflow: Workflow) -> None:
    more = {**SMALL["datasets"]["scenes"], "seed": 1, "shards": 1}
    study = {**SMALL["studies"]["small"], "saes": ["topk"], "describe": ["more"]}
    values = changed(
        datasets={"more": more}, studies={"other": {**study, "classification": None, "segmentation": None}}
    )
    workflow.configure(values)
    described = {"encode": 1, "statistics": 1, "exemplars": 1, "scores": 1, "causes": 1, "purity": 1, "patch_labels": 1}
    figures = {**FEATURE_FIGURES, **SHARED_FIGURES}
    read = {"index": 1, "extract": 1, "store": 1, "study": 1, "what_was_read": 1, "reading_sheet": 1}
    assert workflow.jobs("all") == {**read, **described, **figures}


def test_names_of_latents_redraw_what_shows_them(workflow: Workflow) -> None:
    (workflow.folder / "names.csv").write_text("latent,name\n3,stripes\n")
    workflow.configure(changed(studies={"small": {"names": {"topk": "names.csv"}}}))
    shown = ["feature_map_figure", "exemplar_figure", "exemplar_range_figure", "class_latents_figure"]
    assert workflow.jobs("all") == {"names": 1, **dict.fromkeys([*shown, "study", "report"], 1), "strips_figure": 2}


def test_a_concept_of_your_own_is_probed_and_nothing_else_runs(workflow: Workflow, tmp_path: Path) -> None:
    folders = {key: tmp_path / key for key in ("positives", "negatives")}
    concepts = {"concepts": {"bright": {key: str(folder) for key, folder in folders.items()}}}
    workflow.configure(changed(studies={"small": concepts}))
    done = workflow.run("all", "--dry-run")
    assert f"studies: small: concepts: bright: positives: {folders['positives']}: there is no such folder" in (
        done.stdout + done.stderr
    )
    for brightness, folder in zip((200, 20), folders.values(), strict=True):
        folder.mkdir()
        for number in range(4):
            Image.new("RGB", (40, 30), (brightness, number, 0)).save(folder / f"{number}.png")
    assert workflow.jobs("all") == {"concept": 2, "study": 1, "report": 1}
    done = workflow.run("results/concepts/small/topk/bright/probe.parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    table = pl.read_parquet(workflow.folder / "results/concepts/small/topk/bright/probe.parquet")
    assert table["dictionary"].to_list() == ["trained", "always-on", "untrained"]
    assert workflow.jobs("all") == {"concept": 1, "study": 1, "report": 1}
    Image.new("RGB", (40, 30), (0, 0, 90)).save(folders["negatives"] / "more.png")
    assert workflow.jobs("all") == {"concept": 2, "study": 1, "report": 1}


def test_how_a_model_is_fed_reruns_the_report_alone(workflow: Workflow) -> None:
    workflow.configure(changed(models={"tiny": {"batch_size": 7}}))
    assert workflow.jobs("all") == {"report": 1}


def test_other_weights_redo_what_was_made_with_them(workflow: Workflow) -> None:
    workflow.configure({**changed(), "seed": 1})
    jobs = workflow.jobs("all")
    assert jobs["model"] == jobs["index"] == 1
    assert jobs["train_sae"] == jobs["store"] == 2
    assert jobs["extract"] == 4


def edited(workflow: Workflow, path: str, old: str, new: str) -> dict[str, int]:
    file = workflow.folder / path
    whole = file.read_text()
    assert old in whole
    try:
        file.write_text(whole.replace(old, new))
        return workflow.jobs("all")
    finally:
        file.write_text(whole)


def test_a_changed_library_function_reruns_what_it_makes(workflow: Workflow) -> None:
    jobs = edited(
        workflow, "src/visae/features/exemplars.py", "def write_exemplars(", "X = 1\n\n\ndef write_exemplars("
    )
    drawn = {"exemplar_figure": 2, "exemplar_range_figure": 2, "strips_figure": 4}
    assert jobs == {"exemplars": 2, **drawn, "report": 1}


def test_a_reworded_comment_reruns_nothing(workflow: Workflow) -> None:
    assert edited(workflow, "src/visae/sae/trainer.py", "from __future__", "# why\nfrom __future__") == {}


def test_touched_shards_and_weights_rerun_nothing(workflow: Workflow) -> None:
    touched = [*workflow.folder.glob("results/**/*.parquet"), *workflow.folder.glob("results/**/*.safetensors")]
    large = [path for path in touched if "shard-" in path.name or path.suffix == ".safetensors"]
    assert len(large) > 6
    for path in large:
        os.utime(path)
    assert workflow.jobs("all") == {}


def test_a_dump_that_was_interrupted_leaves_no_partial_file(finished: Workflow) -> None:
    assert list(Path(finished.folder).rglob(".*.partial")) == []
