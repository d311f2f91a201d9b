"""A sweep in a small workflow: its members, what one more of them reruns, the figure; and a transcoder beside it."""

from __future__ import annotations

import copy
import json
from typing import Any

import polars as pl
import pytest
from conftest import SMALL, Workflow

pytestmark = pytest.mark.slow

LAYER = "results/saes/scenes/tiny/layer10"
AFTER = dict.fromkeys(("encode", "statistics", "exemplars", "scores", "causes", "purity"), 1)
AFTER |= {"feature_map_figure": 1, "exemplar_figure": 1, "ground_truth_figure": 1}
AFTER |= {"exemplar_range_figure": 1, "class_latents_figure": 1, "score_nulls_figure": 1}


def swept(values: list[int], **study: Any) -> dict[str, Any]:
    config = copy.deepcopy(SMALL)
    config["sweeps"] = {"sizes": {"base": "topk", "grid": {"k": values}, "select": {"at_most": {"l0": 5}}}}
    config["saes"]["across"] = {**config["saes"]["topk"], "target_layer": 11}
    tasks = {"classification": None, "segmentation": None, "head_layer": None}
    config["studies"]["small"] |= {**tasks, "saes": ["sizes"], **study}
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    from conftest import checkout

    workflow = checkout(tmp_path_factory.mktemp("sweep"))
    workflow.configure(swept([2, 4, 6]))
    finished = workflow.run("all")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return workflow


def test_a_sweep_ends_with_its_choice_and_its_figure(done: Workflow) -> None:
    selection = json.loads((done.folder / LAYER / "sizes/selection.json").read_text())
    assert [member["settings"] for member in selection["members"]] == [{"k": 2}, {"k": 4}, {"k": 6}]
    chosen = done.folder / LAYER / selection["chosen"]
    within = [member for member in selection["members"] if member["l0"] <= 5]
    assert selection["chosen"] == min(within, key=lambda member: member["normalized_mse"])["name"]
    assert (chosen / "sae.safetensors").read_bytes() == (done.folder / LAYER / "sizes/sae.safetensors").read_bytes()
    figure = done.folder / "results/figures/small/sizes/pareto"
    assert pl.read_csv(figure.with_suffix(".csv"))["chosen"].sum() == 1
    assert {path.suffix for path in figure.parent.glob("pareto.*")} == {".png", ".pdf", ".csv"}
    assert (done.folder / "results/features/scenes/tiny/layer10/sizes/scenes/exemplars.parquet").is_file()
    assert "pareto" in (done.folder / "results/report.html").read_text()
    # One job trained all three.
    logs = [path.read_text() for path in (done.folder / "logs" / LAYER).glob("sizes-*/summary.json.log")]
    assert sorted("to be trained on one reading" in log for log in logs) == [False, False, True]
    assert done.jobs("all") == {}


def test_one_more_member_trains_that_member_alone(done: Workflow) -> None:
    done.configure(swept([2, 4, 5, 6]))
    jobs = done.jobs("all")
    done.configure(swept([2, 4, 6]))
    figures = {"training_figure": 1, "pareto_figure": 1, "report": 1}
    assert jobs == {"train_sae": 1, "select_sae": 1, **AFTER, **figures}


def test_members_are_scored_for_the_figure_where_the_sweep_says_so(done: Workflow) -> None:
    config = swept([2, 4, 6])
    config["sweeps"]["sizes"]["score"] = True
    done.configure(config)
    assert done.jobs("all") == {"encode": 3, "scores": 3, "pareto_figure": 1, "report": 1}
    finished = done.run("results/figures/small/sizes/pareto.png")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    table = pl.read_csv(done.folder / "results/figures/small/sizes/pareto.csv")
    chosen = pl.read_parquet(done.folder / "results/features/scenes/tiny/layer10/sizes/scenes/scores.parquet")
    assert table["f1"].null_count() == 0
    assert table.filter("chosen")["f1"].item() == pytest.approx(chosen.filter(rank=0)["f1"].mean())
    done.configure(swept([2, 4, 6]))
    assert done.run("all").returncode == 0  # draws the figure as it was


def test_a_transcoder_reads_two_layers_and_is_described(done: Workflow) -> None:
    done.configure(swept([2, 4, 6], saes=["sizes", "across"]))
    assert done.jobs("all") == {
        **{"extract": 2, "store": 1, "train_sae": 1, **AFTER},
        **{"training_figure": 1, "study": 1, "report": 1},
    }
    finished = done.run(f"{LAYER}/across/summary.json")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    summary = json.loads((done.folder / LAYER / "across/summary.json").read_text())
    assert (summary["layer"], summary["target_layer"], summary["d_target"]) == (10, 11, 192)
    done.configure(swept([2, 4, 6]))


def test_members_that_differ_in_their_seed_are_matched(fresh: Workflow) -> None:
    config = swept([2, 4])
    config["sweeps"]["sizes"]["grid"]["seed"] = [0, 1]
    fresh.configure(config)
    assert fresh.jobs("saes")["stability"] == 1
    fresh.configure(swept([2, 4]))
    assert "stability" not in fresh.jobs("saes")


def test_edits_of_a_transcoder_are_refused(fresh: Workflow) -> None:
    fresh.configure(swept([2], saes=["across"], segmentation="scenes", head_layer=11))
    said = fresh.run("--dry-run")
    assert said.returncode != 0
    wanted = "saes: 'across' is a transcoder (target_layer: 11), which can be described, not edited"
    assert wanted in said.stdout + said.stderr
