"""Sweeps in the configuration: their members, and how a mistake is named."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from visae.config.members import every_sae
from visae.config.parse import parse_config
from visae.errors import ConfigError

DEMO = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())
pytestmark = pytest.mark.usefixtures("one_thread")


def configured(sweep):
    return parse_config({**copy.deepcopy(DEMO), "sweeps": {"sizes": sweep}})


def members(sweep):
    return {name: sae for name, sae in every_sae(configured(sweep)).items() if name.startswith("sizes")}


def test_a_grid_is_every_combination_under_names_fit_for_paths() -> None:
    found = members({"base": "topk", "grid": {"k": [8, 16], "learning_rate": [1e-3, 1]}})
    assert [(sae.k, sae.learning_rate) for sae in found.values()] == [(8, 1e-3), (8, 1), (16, 1e-3), (16, 1)]
    assert all(re.fullmatch(r"sizes-[0-9a-f]{8}", name) for name in found)
    assert {sae.expansion for sae in found.values()} == {4}


def test_names_depend_on_a_members_own_settings_alone() -> None:
    grid = members({"base": "topk", "grid": {"k": [8, 16]}})
    listed = members({"base": "topk", "list": [{"k": 64}, {"k": 16}, {"k": 8, "seed": 0}, {"k": 8.0}]})
    assert set(grid) < set(listed)
    assert len(listed) == 3  # equal ones are one


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"base": "gone", "grid": {"k": [1]}}, r"sweeps: sizes: base: 'gone' is not in saes \(relu, topk\)"),
        ({"base": "topk", "grid": {"kk": [1]}}, r'sizes: member \{"kk": 1\}: .*unknown key \'kk\'; allowed: .*\bk\b'),
        ({"base": "topk", "grid": {"k": []}}, r"sizes: grid: k: \[\] has no values"),
        ({"base": "topk", "grid": {}}, r"sizes: give either grid or list"),
        ({"base": "topk", "grid": {"k": [1]}, "list": [{"k": 2}]}, r"sizes: give either grid or list"),
        ({"base": "topk", "grid": {"k": [8, 0]}}, r'sizes: member \{"k": 0\}: k: 0 is less than the minimum of 1'),
        ({"base": "topk", "list": [{"expansion": 0}]}, r"expansion: 0 is less than the minimum of 1"),
        ({"base": "topk", "list": [{"variant": "relu"}]}, r"variant: a sweep has one variant"),
        ({"base": "topk", "grid": {"tokens": ["class", "all"]}}, r"tokens: a sweep has one kind of tokens, its base's"),
        ({"base": "topk", "grid": {"normalization": ["batch"]}}, r"normalization: 'batch' is not one of"),
        ({"base": "topk", "grid": {"k": [1]}, "select": {"at_most": {"dead": 1}}}, r"unknown metric 'dead'; allowed"),
        ({"base": "topk", "grid": {"k": [1]}, "select": {"by": "dead"}}, r"select: by: 'dead' is not one of"),
        ({"base": "topk", "bogus": 1}, r"sweeps: sizes: unknown key 'bogus'; allowed: base"),
    ],
)
def test_a_mistake_in_a_sweep_is_named_by_its_key(sweep, message) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(sweep)


def test_members_of_class_tokens_have_no_scores_of_patches() -> None:
    saes = {**copy.deepcopy(DEMO["saes"]), "cls": {**DEMO["saes"]["topk"], "tokens": "class"}}
    sweep = {"base": "cls", "grid": {"normalization": ["scale", "per_token"]}, "score": True}
    with pytest.raises(ConfigError, match="sweeps: kinds: score: scores are of patches, and cls is of class tokens"):
        parse_config({**copy.deepcopy(DEMO), "saes": saes, "sweeps": {"kinds": sweep}})
    parse_config({**copy.deepcopy(DEMO), "saes": saes, "sweeps": {"kinds": {**sweep, "score": False}}})


def test_a_sweep_may_not_have_the_name_of_an_sae() -> None:
    with pytest.raises(ConfigError, match="sweeps: topk: this name is in saes too"):
        parse_config({**copy.deepcopy(DEMO), "sweeps": {"topk": {"base": "relu", "grid": {"l1": [0.1]}}}})
