"""A study of counterfactual pairs, from made pictures to figures."""

import pytest
from conftest import SMALL, Workflow

pytestmark = pytest.mark.slow

STUDY = {
    "model": "tiny",
    "layer": 10,
    "train_on": "scenes",
    "saes": ["topk", "relu"],
    "describe": ["scenes"],
    "counterfactuals": "pairs",
}
PAIRS = {"kind": "scene_pairs", "train": 4, "val": 4, "image_size": 64}


def test_pairs_are_made_read_and_measured_once_a_study(fresh: Workflow) -> None:
    fresh.configure({**SMALL, "datasets": {**SMALL["datasets"], "pairs": PAIRS}, "studies": {"small": STUDY}})
    jobs = fresh.jobs("counterfactuals")
    figures = ("selective_figure", "cause_latents_figure", "cause_edits_figure")
    once = dict.fromkeys(("model", "counterfactuals_of_study", *figures), 1)
    # Pictures that SAEs train on and those of pairs; the small ones are in two shards.
    assert jobs.pop("counterfactuals") == 1
    assert jobs == {**once, "index": 2, "extract": 3, "store": 2, "train_sae": 2}
    assert fresh.jobs("all")["counterfactuals_of_study"] == 1
