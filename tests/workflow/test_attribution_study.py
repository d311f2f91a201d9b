"""Which jobs a study that asks where latents look has, and what it has to have."""

from __future__ import annotations

from copy import deepcopy

import pytest
from conftest import SMALL, Workflow

pytestmark = pytest.mark.slow


def asking(**more: object) -> dict:
    found = deepcopy(SMALL)
    found["datasets"]["pairs"] = {"kind": "scene_pairs", "train": 4, "val": 4, "image_size": 64}
    found["studies"]["small"] |= {"attribution": True, "counterfactuals": "pairs", **more}
    return found


def test_a_study_that_asks_has_its_maps_of_described_pictures_and_of_pairs(fresh: Workflow) -> None:
    fresh.configure(asking())
    jobs = fresh.jobs("attributions")
    maps = ("attribution", "attribution_figure", "attribution_of_pairs", "attribution_of_pairs_figure")
    assert {rule: jobs.get(rule) for rule in maps} == dict.fromkeys(maps, 2)
    # Of pairs, the codes are made as of any other data set.
    assert jobs["encode"] == 4


def test_a_study_that_does_not_ask_has_none(fresh: Workflow) -> None:
    fresh.configure(asking(attribution=False))
    assert not [rule for rule in fresh.jobs("all") if "attribution" in rule]
