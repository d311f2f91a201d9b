"""Latents that serve a planted shortcut are found, suppressing them helps the groups that it fails, others do not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from groups_for_tests import CORE, N_TRAIN, SHORTCUT, Shortcut, make_shortcut
from planted_for_tests import LAST
from safetensors.torch import save_file

from visae.config.parse import parse_config
from visae.config.settings import FigureSettings, GroupSettings
from visae.data.index import read_groups
from visae.errors import ConfigError, DataError
from visae.figures import groups as figure_of_groups
from visae.groups.accuracy import Accuracies
from visae.groups.experiment import run_groups
from visae.groups.headline import groups_lines
from visae.groups.pictures import Grouped, halved
from visae.groups.retrain import few_enough
from visae.groups.tables import ACCURACIES, LATENTS
from visae.sae import load_sae
from visae.tasks.members import open_task
from visae.vision.model import load_model

CPU = torch.device("cpu")
SETTINGS = GroupSettings(suppressed=[1, 2, 500], verified=2, bootstrap=200, balanced_draws=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Shortcut:
    return make_shortcut(tmp_path_factory.mktemp("shortcut") / "world")


def run(world: Shortcut, output: Path, settings: GroupSettings = SETTINGS, task="classification", **files: str):
    summary = run_groups(task, replace(world.files, **files), settings, LAST, output, device="cpu")
    return pl.read_parquet(output / "groups.parquet"), pl.read_parquet(output / "spurious.parquet"), summary


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    return run(world, tmp_path_factory.mktemp("done"))


def with_groups(world: Shortcut, folder: Path, groups: list) -> str:
    """Index of the same pictures with other groups."""
    folder.mkdir()
    index = pl.read_parquet(world.files.index).with_columns(group=pl.Series(groups, dtype=pl.String))
    index.write_parquet(folder / "index.parquet")
    (folder / "summary.json").write_text(Path(world.files.index).with_name("summary.json").read_text())
    return str(folder / "index.parquet")


def worst(table: pl.DataFrame, way: str, **more) -> float:
    return table.filter(pl.col("is_chosen"), over="worst", way=way, **more)["accuracy"].item()


def test_the_latents_of_the_shortcut_come_first_and_what_the_classes_are_does_not(done):
    _, latents, summary = done
    assert set(latents["latent"][:2]) == set(SHORTCUT)
    assert latents["rank"][:2].to_list() == [0, 1]
    of_classes = latents.filter(pl.col("latent").is_in(CORE))
    assert of_classes["rank"].null_count() == 2
    assert (of_classes["estimate_train"] < 0).all()
    assert sorted(summary["verified"]) == list(SHORTCUT)


def test_weak_groups_are_those_in_which_the_shortcut_breaks(done):
    _, _, summary = done
    assert {row["group"]: row["weak"] for row in summary["groups"]} == {
        "class 1 on 1": False,
        "class 1 on 2": True,
        "class 2 on 1": True,
        "class 2 on 2": False,
    }


def test_suppression_raises_the_worst_group_from_what_the_strengths_say_to_all_right(world, done):
    table, _, summary = done
    before = table.filter(way="before", over="group")
    n_val = sum(row["n_chosen"] + row["n_measured"] for row in summary["groups"])
    assert n_val == len(world.truth) - N_TRAIN
    for row in before.iter_rows(named=True):
        holds = row["group"] in ("class 1 on 1", "class 2 on 2")
        assert holds == (row["accuracy"] == 1.0)
    # Where it breaks, pictures are right where the class is stronger than the shortcut: about one in four.
    assert worst(table, "before") < 0.5
    assert summary["n_suppressed"] == 2
    assert worst(table, "suppressed") == 1.0
    assert worst(table, "suppressed_retrained") == 1.0
    row = table.filter(pl.col("is_chosen"), way="suppressed", over="worst").row(0, named=True)
    assert row["change"] == pytest.approx(1 - worst(table, "before"))
    assert 0 < row["change_low"] <= row["change"] <= row["change_high"]


def test_accuracy_before_is_what_the_strengths_of_the_measured_pictures_say(world, done):
    table, _, _ = done
    task = open_task("classification", world.files, load_model(world.files.card, CPU), LAST, CPU)
    half = halved(task, read_groups(world.files.index), "train", "val", 0).measured
    expected = {name: world.right[half.ids[half.group == number]].mean() for number, name in enumerate(half.names)}
    found = table.filter(way="before", over="group")
    assert dict(found.select("group", "accuracy").iter_rows()) == pytest.approx(expected)
    assert table.filter(way="before", over="pictures")["accuracy"].item() == world.right[half.ids].mean()


def test_the_halves_share_no_picture_and_hold_every_group(world):
    task = open_task("classification", world.files, load_model(world.files.card, CPU), LAST, CPU)
    halves = halved(task, read_groups(world.files.index), "train", "val", 5)
    one, other = halves.chosen, halves.measured
    assert not set(one.ids.tolist()) & set(other.ids.tolist())
    assert sorted([*one.ids.tolist(), *other.ids.tolist()]) == list(range(N_TRAIN, len(world.truth)))
    assert one.sizes.min() > 0
    assert (one.sizes == other.sizes).all()


def test_other_latents_do_not(done):
    table, _, summary = done
    for size in ("natural", "matched"):
        assert worst(table, "random_latent", size=size) < 0.6
    for control in summary["above_controls"]:
        assert control["difference_low"] > 0


def test_retraining_on_balanced_pictures_helps_as_well(done):
    table, _, summary = done
    assert worst(table, "retrained_val") > worst(table, "before") + 0.2
    assert worst(table, "retrained_train") > worst(table, "before")
    assert summary["not_retrained"] == []


def test_numbers_that_there_are_not_enough_latents_for_are_named(done):
    _, _, summary = done
    assert summary["not_suppressed"] == [500]


def test_tables_have_their_columns_and_intervals_hold_their_accuracy(done):
    table, latents, _ = done
    assert dict(table.schema) == ACCURACIES
    assert dict(latents.schema) == LATENTS
    assert latents["latent"].is_unique().all()
    assert latents["follows"].null_count() == len(latents)
    assert (table["accuracy_low"] <= table["accuracy"] + 1e-9).all()
    assert (table["accuracy"] <= table["accuracy_high"] + 1e-9).all()


def test_the_same_seed_gives_the_same_tables(world, done, tmp_path):
    again = run(world, tmp_path)
    assert again[0].equals(done[0])
    assert again[1].equals(done[1])


def test_a_probe_that_does_not_read_the_shortcut_gains_nothing_and_no_latent_is_verified(world, tmp_path):
    probe = tmp_path / "probe"
    shutil.copytree(Path(world.files.readout).parent, probe)
    directions = load_sae(world.files.sae, "cpu").decoder_weight.detach()
    weight = {"weight": 3 * directions[list(CORE)].contiguous(), "bias": torch.zeros(2)}
    save_file(weight, probe / "weights.safetensors")
    table, _, summary = run(world, tmp_path / "out", readout=str(probe / "metrics.json"))
    assert worst(table, "before") == 1.0
    assert summary["verified"] == []
    assert not set(summary["latents"]) & set(CORE)


def test_groups_without_pictures_or_with_one_are_named_and_left_out(world, tmp_path):
    groups = pl.read_parquet(world.files.index)["group"].to_list()
    groups[0], groups[N_TRAIN] = "only on train", "alone"
    _, _, summary = run(world, tmp_path / "out", index=with_groups(world, tmp_path / "index", groups))
    assert {row["group"]: row["n_val"] for row in summary["left_out"]} == {"alone": 1, "only on train": 0}
    assert "no picture" in {row["group"]: row["reason"] for row in summary["left_out"]}["only on train"]


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (lambda n: [None] * n, "no picture of the data set belongs to a group"),
        (lambda n: ["one"] * n, "1 group has two pictures or more in split 'val'"),
        (lambda n: ["one"] * (n - 1) + ["other"], r"With fewer: other \(1\)"),
    ],
)
def test_pictures_without_two_groups_are_refused(world, tmp_path, groups, told):
    index = with_groups(world, tmp_path / "index", groups(len(world.truth)))
    with pytest.raises(DataError, match=told):
        run(world, tmp_path / "out", index=index)


def test_an_index_of_before_there_were_groups_is_refused_in_the_same_words(world, tmp_path):
    path = with_groups(world, tmp_path / "index", [None] * len(world.truth))
    pl.read_parquet(path).drop("group").write_parquet(path)
    with pytest.raises(DataError, match="give a data set of kind table a column group"):
        run(world, tmp_path / "out", index=path)


def test_a_balanced_probe_needs_every_group_on_its_split(world, tmp_path):
    groups = pl.read_parquet(world.files.index)["group"].to_list()
    groups[:N_TRAIN] = [None] * N_TRAIN
    table, _, summary = run(world, tmp_path / "out", index=with_groups(world, tmp_path / "index", groups))
    assert [row["way"] for row in summary["not_retrained"]] == ["retrained_train"]
    assert "retrained_train" not in set(table["way"])
    assert worst(table, "suppressed") == 1.0


def test_worst_and_mean_are_over_groups_and_pictures_over_pictures():
    group = np.array([0] * 8 + [1] * 2)
    pictures = Grouped(np.arange(10), np.zeros(10, dtype=np.int64), group, ["large", "small"])
    right = np.array([1.0] * 6 + [0, 0] + [1, 0])
    rows = {row["over"]: row for row in Accuracies(pictures, 50, 0).measured(right, np.zeros(10))[2:]}
    assert (rows["worst"]["accuracy"], rows["worst"]["group"]) == (0.5, "small")
    assert rows["mean"]["accuracy"] == pytest.approx(0.625)
    assert rows["pictures"]["accuracy"] == pytest.approx(0.7)
    assert few_enough(pictures, 4, 0).sizes.tolist() == [2, 2]


def test_the_figure_has_every_way_and_group(done, tmp_path):
    table, latents, _ = done
    shown = figure_of_groups.data(table, latents)
    figure = figure_of_groups.draw(shown, FigureSettings())
    by_group = figure.axes[0]
    named = [tick.get_text() for tick in by_group.get_yticklabels()]
    assert set(named) == {*table["group"].drop_nulls(), "worst group"}
    assert len(by_group.containers) == len(set(table["way"]) & set(figure_of_groups.WAYS))


def test_the_headline_names_the_latents_and_the_worst_group(done, tmp_path):
    _, _, summary = done
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(summary))
    lines = "\n".join(groups_lines(path))
    assert "2 are suppressed" in lines
    assert "latents suppressed" in lines
    assert groups_lines(tmp_path / "none.json") == []


SCENES = {"kind": "scenes", "textures": ["brick", "fur"]}


def configuration(dataset: dict, **study) -> dict:
    return {
        "datasets": {"d": dataset},
        "models": {"m": {"architecture": "vit_small_patch14_dinov2"}},
        "saes": {"s": {"variant": "topk"}},
        "studies": {
            "n": {
                "model": "m", "layer": 1, "head_layer": 2, "train_on": "d", "saes": ["s"], "describe": ["d"],
                "groups": True, **study,
            }
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "study", "told"),
    [
        (SCENES, {"classification": "d"}, "scenes without a shortcut, which has no groups"),
        ({**SCENES, "shortcut": 0.9}, {"segmentation": "d"}, "no task of this study answers a picture"),
        ({**SCENES, "shortcut": 1.5}, {"classification": "d"}, "shortcut"),
        ({**SCENES, "textures": ["brick", "wool"]}, {"classification": "d"}, "wool"),
        ({"kind": "huggingface", "root": "x"}, {"classification": "d"}, "huggingface without its key group"),
        ({"kind": "image_folder", "root": "x"}, {"classification": "d"}, "image_folder, which has no groups"),
    ],
)
def test_what_has_no_groups_is_refused_with_the_key(dataset, study, told):
    with pytest.raises(ConfigError, match=told):
        parse_config(configuration(dataset, **study))


def test_what_has_groups_is_taken():
    assert parse_config(configuration({**SCENES, "shortcut": 0.9}, classification="d")).studies["n"].groups
    assert parse_config(configuration({"kind": "table", "file": "x.csv"}, classification="d")).studies["n"].groups
