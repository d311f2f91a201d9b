"""What cannot be edited or measured is refused, or reported as not measurable, and is never a zero."""

import json
import re
import shutil
from dataclasses import asdict

import polars as pl
import pytest
import torch
from planted_for_tests import (
    LAST,
    MIDDLE,
    N_FIT,
    READOUTS,
    WIDTH,
    files_of,
    make_planted,
    run,
    run_classification,
    run_segmentation,
)
from safetensors.torch import save_file

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.arms.targets import NOT_LEARNED
from visae.cli import main
from visae.errors import DataError, ModelError, StoreError


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return make_planted(tmp_path_factory.mktemp("planted"))


def test_a_class_that_no_picture_has_is_not_measurable(planted, tmp_path):
    labels = pl.read_parquet(planted.folder / "patch_labels.parquet")
    of_measured = (pl.col("image_id") >= N_FIT) & (pl.col("label") == 2)
    labels.with_columns(pl.when(of_measured).then(0).otherwise("label").cast(pl.Int16).alias("label")).write_parquet(
        tmp_path / "labels.parquet"
    )
    summary = run_segmentation(planted, tmp_path, labels=tmp_path / "labels.parquet")
    missing = {found["name"]: found["reason"] for found in summary["not_measurable"]}
    assert missing["class 2"] == "no patch of the measured split is labelled with it"
    for name in ("arms", "becomes", "doses", "untrained"):
        table = pl.read_parquet(tmp_path / f"{name}.parquet")
        # It can still be inserted into pictures without it.
        table = table.filter(edit="suppress") if "edit" in table.columns else table
        assert 2 not in table["class_id"].to_list()


def test_a_chosen_latent_that_never_fires_is_not_measurable(planted, tmp_path):
    scores = pl.read_parquet(planted.folder / "scores.parquet")
    silent = pl.when(pl.col("class_id") == 3).then(20).otherwise("latent").cast(pl.Int32).alias("latent")
    scores.with_columns(silent).write_parquet(tmp_path / "scores.parquet")
    summary = run_segmentation(planted, tmp_path, scores=tmp_path / "scores.parquet")
    missing = {found["name"]: found["reason"] for found in summary["not_measurable"]}
    assert missing["class 3"] == "no latent that is active on the selection split was chosen for it there"
    assert 3 not in pl.read_parquet(tmp_path / "arms.parquet").filter(edit="suppress")["class_id"].to_list()


def test_a_class_whose_latent_is_silent_in_its_pictures_is_not_measurable(planted, tmp_path):
    """Suppressing nothing changes nothing, which says nothing of the latent."""
    store = ActivationStore.open(planted.manifests[LAST])
    tokens = store.read(range(store.n_images), "all")
    of_class = [i for i in range(N_FIT, store.n_images) if planted.labels[i] == 3]
    tokens[of_class] = tokens[0, 0].clone()
    splits = {"train": N_FIT, "val": store.n_images - N_FIT}
    ids = list(store.choice.tokens)
    manifest = write_store(tmp_path / "store", tokens, ids, splits, layer=LAST, grid=store.grid)
    summary = run_classification(planted, tmp_path, manifest=manifest)
    assert summary["not_measurable"] == [
        {"id": 3, "name": "class 3", "reason": "its latents are active in none of its pictures of the measured split"}
    ]
    table = pl.read_parquet(tmp_path / "arms.parquet")
    assert set(table.filter(edit="suppress")["class_id"].drop_nulls()) == {1, 2}
    assert set(table.filter(edit="insert")["class_id"].drop_nulls()) == {1, 2, 3}
    mean = table.filter(edit="suppress", arm="automatic", class_name="mean", scale=0.0)["probability_change"].item()
    each = table.filter(edit="suppress", arm="automatic", scale=0.0).drop_nulls("class_id")["probability_change"]
    assert mean == pytest.approx(each.mean())


def test_a_class_without_pictures_is_not_measurable_by_a_probe(planted, tmp_path):
    index = pl.read_parquet(planted.folder / "index.parquet")
    gone = (pl.col("image_id") >= N_FIT) & (pl.col("label") == 2)
    index.with_columns(pl.when(~gone).then("label").alias("label")).write_parquet(tmp_path / "index.parquet")
    summary = run_classification(planted, tmp_path, index=tmp_path / "index.parquet")
    assert summary["not_measurable"] == [
        {"id": 2, "name": "class 2", "reason": "the measured split has no picture of it"}
    ]
    assert 2 not in pl.read_parquet(tmp_path / "arms.parquet").filter(edit="suppress")["class_id"].to_list()


def head_with(planted, task, folder, **entries):
    """Copy of a task's head whose metrics.json says something else too, as an option of its run."""
    name = READOUTS[task]
    shutil.copytree(planted.folder / name, folder / name)
    metrics = json.loads((folder / name / "metrics.json").read_text())
    (folder / name / "metrics.json").write_text(json.dumps(metrics | entries))
    return {"readout": folder / name / "metrics.json"}


@pytest.mark.parametrize("task", READOUTS)
def test_a_class_that_the_head_has_not_learned_is_not_measurable(planted, tmp_path, task):
    head = head_with(planted, task, tmp_path, not_learned=[{"id": 7, "name": "boat"}])
    found = run(planted, task, tmp_path, **head)["not_measurable"]
    assert [c["reason"] for c in found if c["id"] == 7] == [NOT_LEARNED]


@pytest.mark.parametrize("task", READOUTS)
@pytest.mark.parametrize(
    ("manual", "message"),
    [
        ({"class 1": [20]}, "class 1: latent 20 is never active on the selection split"),
        ({"class 1": [WIDTH]}, f"latents 0 to {WIDTH - 1}"),
        ({"class 1": []}, "name one latent or more"),
        ({"sky": [1]}, r"sky: no class of .*/metrics.json, which has class 1, class 2, class 3"),
    ],
)
def test_latents_named_by_hand_have_to_be_there(planted, tmp_path, task, manual, message):
    with pytest.raises(DataError, match=rf"studies: …: manual: …: {task}: .*{message}"):
        run(planted, task, tmp_path, manual=manual)


@pytest.mark.parametrize("task", READOUTS)
def test_a_head_of_another_model_is_refused(planted, tmp_path, task):
    name = READOUTS[task]
    head = head_with(planted, task, tmp_path, model_sha256="f" * 64)
    with pytest.raises(ModelError, match=r"metrics.json: trained on tokens of other weights"):
        run(planted, task, tmp_path, **head)
    head = head_with(planted, task, tmp_path / "narrow")
    n_classes = 4 if task == "segmentation" else 3
    narrow = {"weight": torch.zeros(n_classes, 7), "bias": torch.zeros(n_classes)}
    save_file(narrow, tmp_path / "narrow" / name / "weights.safetensors")
    with pytest.raises(ModelError, match=rf"metrics.json: the .* reads 7 values .* it is the {name} of another model"):
        run(planted, task, tmp_path, **head)


@pytest.mark.parametrize("task", READOUTS)
def test_tokens_of_another_layer_are_refused(planted, tmp_path, task):
    with pytest.raises(StoreError, match=rf"tokens of layer {MIDDLE}, but those of layer {LAST} are needed"):
        run(planted, task, tmp_path, manifest=planted.manifests[MIDDLE])


def test_labels_of_another_grid_are_refused(planted, tmp_path):
    labels = pl.read_parquet(planted.folder / "patch_labels.parquet").filter(pl.col("token") < 9)
    labels.write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=r"labels.parquet: 9 patches of picture 0, but the head reads 4 x 4"):
        run_segmentation(planted, tmp_path, labels=tmp_path / "labels.parquet")


@pytest.mark.parametrize(
    ("manual", "message"),
    [
        ("{sky: [1]}", r"DataError: studies: …: manual: …: classification: sky: no class of .*, which has class 1, "),
        ("{class 1: [20]}", "DataError: .* class 1: latent 20 is never active"),
        ("{class 1: 20}", "write lists of whole numbers by name"),
        ("[20]", "write lists of whole numbers by name"),
    ],
)
def test_the_command_refuses_the_same(planted, tmp_path, capsys, manual, message):
    files = files_of(planted, "classification")
    given = [
        part for name, value in asdict(files).items() if value for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    options = ["--task", "classification", "--layer", str(LAST), "--output", str(tmp_path), *given]
    with pytest.raises(SystemExit) as ended:
        main(["experiment", *options, "--manual", manual])
    assert re.search(message, f"{ended.value} {capsys.readouterr().err}")
