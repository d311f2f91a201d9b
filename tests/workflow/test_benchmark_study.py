"""The benchmark of SAEs in the workflow: off unless it is asked for, and then a table an SAE and a page a study."""

from __future__ import annotations

import polars as pl
import pytest
from conftest import SMALL, Workflow

FEATURES = "results/features/scenes/tiny/layer10"


def benchmarked(**more: object) -> dict:
    others = {"kind": "scenes", "train": 4, "val": 40, "test": 1, "image_size": 64, "seed": 7}
    described = {**SMALL["studies"]["small"], "classification": None, "segmentation": None}
    return {
        **SMALL,
        "datasets": {**SMALL["datasets"], "elsewhere": others},
        "features": {"permutations": 5, "similarity": "own"},
        "benchmark": {"enabled": True, "others": ["elsewhere"], "groups": "groups.json", **more},
        "studies": {"small": {key: value for key, value in described.items() if value is not None}},
    }


@pytest.mark.slow
def test_a_study_gets_a_table_of_each_sae_and_a_page(fresh: Workflow) -> None:
    (fresh.folder / "groups.json").write_text('{"all": [1, 2, 3, 4, 5, 6]}')
    fresh.configure(benchmarked())
    page = "results/figures/small/scenes/benchmark.html"
    done = fresh.run(page)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = {
        sae: pl.read_parquet(fresh.folder / FEATURES / sae / "scenes/benchmark.parquet") for sae in ("topk", "relu")
    }
    for table in tables.values():
        found = dict(zip(table["metric"], table["value"], strict=True))
        assert found["fvu"] is not None
        assert found["monosemanticity"] is not None
        assert found["mean_average_precision"] is not None
    text = (fresh.folder / page).read_text()
    assert "cross_domain" in text
    assert "topk" in text
    assert "relu" in text
    assert pl.read_csv((fresh.folder / page).with_suffix(".csv")).height == 2 * tables["topk"].height


def test_it_is_made_where_it_is_asked_for_alone(fresh: Workflow) -> None:
    assert "sae_benchmark" not in fresh.jobs("all")
    (fresh.folder / "groups.json").write_text("{}")
    fresh.configure(benchmarked())
    jobs = fresh.jobs("all")
    assert (jobs["sae_benchmark"], jobs["sae_benchmark_page"], jobs["encode"]) == (2, 1, 4)


def test_data_sets_that_are_not_there_are_named(fresh: Workflow) -> None:
    fresh.configure(benchmarked(others=["nowhere"]))
    done = fresh.run("--dry-run")
    assert done.returncode != 0
    assert "benchmark: others: 'nowhere' is not in datasets" in done.stdout + done.stderr
