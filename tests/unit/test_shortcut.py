"""Made pictures with a planted shortcut, and groups out of tables."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import polars as pl
import pytest
from huggingface_for_tests import ALL, CLASS, PICTURE, hub, pictures, plain_shard, shard
from tables_for_tests import csv, paths, table

from visae.config.settings import ScenesSettings
from visae.data.dealing import chosen_textures
from visae.data.index import build_index, read_groups, read_index
from visae.data.scenes import make_scene, make_scenes
from visae.errors import DataError

TEXTURES = ("gravel", "fur", "print")
OWN = {"gravel": "astronaut", "fur": "camera", "print": "coffee"}


def settings(**more) -> ScenesSettings:
    known = {"train": 90, "val": 36, "test": 9, "image_size": 32, "textures": list(TEXTURES), "shortcut": 0.8}
    return ScenesSettings(kind="scenes", **{**known, **more})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("shortcut") / "index.parquet"
    build_index(settings(), found)
    return found.parent


def largest(folder: Path, split: str) -> pl.DataFrame:
    causes = pl.read_parquet(folder / "pictures/causes.parquet")
    own = pl.col("texture").replace_strict(OWN) == pl.col("background")
    return causes.filter(pl.col("is_largest"), split=split).with_columns(holds=own).sort("image_id")


def test_on_train_the_background_goes_with_the_class_and_elsewhere_it_tells_nothing(folder):
    assert largest(folder, "train")["holds"].mean() == pytest.approx(0.8, abs=0.13)  # three standard deviations
    for split, each in (("val", 4), ("test", 1)):
        pairs = largest(folder, split).group_by("texture", "background").len()
        assert len(pairs) == 9
        assert set(pairs["len"]) == {each}


def test_where_it_breaks_the_background_is_that_of_another_class(folder):
    broken = largest(folder, "train").filter(~pl.col("holds"))
    assert set(broken["background"]) == set(OWN.values())


def test_groups_are_class_and_background(folder):
    groups, index = read_groups(folder / "index.parquet"), read_index(folder / "index.parquet")
    assert sorted(groups) == index["image_id"].to_list()
    for split in ("train", "val"):
        rows = largest(folder, split).select("image_id", "texture", "background")
        assert all(groups[i] == f"{texture} on {background}" for i, texture, background in rows.iter_rows())
    labels = dict(index.select("image_id", "label_name").iter_rows())
    assert all(group.startswith(f"{labels[i]} on ") for i, group in groups.items())


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_shortcut_changes_the_background_and_nothing_else(split):
    changed = 0
    for number in range(6):
        one, other = (make_scene(4, split, number, 48, TEXTURES, share) for share in (0.0, 1.0))
        np.testing.assert_array_equal(one.mask, other.mask)
        for cause, same in zip(one.causes, other.causes, strict=True):
            assert {**cause, "background": ""} == {**same, "background": ""}
        changed += one.causes[0]["background"] != other.causes[0]["background"]
    assert changed


def test_without_a_shortcut_pictures_are_those_that_were_made_before_there_was_one():
    """Written down from a version without this setting: whoever has made pictures finds the same again."""
    found = [
        (cause["texture"], cause["shape"], cause["background"], round(cause["rotation"], 6))
        for number in range(2)
        for cause in make_scene(3, "train", number, 32).causes
    ]
    assert found == [
        ("brick", "square", "coffee", 123.37803),
        ("grass", "star", "rocket", 118.802329),
        ("coins", "cross", "rocket", 207.255306),
    ]


def test_without_a_shortcut_there_are_no_groups(tmp_path):
    build_index(settings(shortcut=0.0, train=3, val=3, test=1), tmp_path / "index.parquet")
    assert read_groups(tmp_path / "index.parquet") == {}


def test_pictures_stay_when_there_are_more(tmp_path):
    few, many = (
        make_scenes(settings(train=n, val=n, test=1), tmp_path / str(n), 0) or tmp_path / str(n) for n in (4, 8)
    )
    for path in sorted(few.rglob("*.jpg")):
        assert path.read_bytes() == (many / path.relative_to(few)).read_bytes()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"textures": ["fur"]}, "name two or more"),
        ({"textures": ["fur", "fur"]}, "each once"),
        ({"textures": []}, "each of 8 textures would need a background of its own, and there are 6"),
    ],
)
def test_textures_that_cannot_be_are_refused(more, told):
    with pytest.raises(DataError, match=told):
        chosen_textures(settings(**more))


# --- tables ---


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_names_groups_and_some_pictures_may_have_none(six_pictures, index_path, form):
    groups = ["on grass", None, "on sand", "on grass", "NaN", "7"]
    columns = {"path": paths(), "split": ["train"] * 4 + ["val"] * 2, "group": groups}
    build_index(table(six_pictures, columns, form), index_path)
    assert read_groups(index_path) == {0: "on grass", 2: "on sand", 3: "on grass", 5: "7"}


def test_integers_are_groups_too(six_pictures, index_path):
    columns = {"path": paths(), "split": ["train"] * 6, "group": [1, 2, 1, 2, 1, None]}
    build_index(table(six_pictures, columns, "parquet"), index_path)
    assert read_groups(index_path) == {0: "1", 1: "2", 2: "1", 3: "2", 4: "1"}


def test_a_column_of_groups_that_says_nothing_is_refused(six_pictures, index_path):
    text = "path,split,group\n" + "".join(f"{path},train,\n" for path in paths())
    with pytest.raises(DataError, match="the column group is empty in all rows; fill it, or leave it out"):
        build_index(csv(six_pictures, text), index_path)


# --- Parquet files of the hub ---


def test_a_column_of_the_hub_names_groups_by_its_features_or_by_its_values(tmp_path):
    known = {"image": PICTURE, "label": CLASS, "place": datasets.ClassLabel(names=["land", "water"])}
    rows = {"image": pictures(4), "label": [0, 1, 0, 1], "place": [1, 0, -1, 1]}
    shard(tmp_path / "named/train-00000-of-00001.parquet", rows, known)
    plain = {"image": pictures(4), "place": ["sea", None, "", "lake"]}
    plain_shard(tmp_path / "plain/train-00000-of-00001.parquet", plain)
    for name, more, expected in (
        ("named", {}, {0: "water", 1: "land", 3: "water"}),
        ("plain", {"label": "none"}, {0: "sea", 3: "lake"}),
    ):
        build_index(hub(tmp_path / name, group="place", **more, **ALL), tmp_path / f"{name}.parquet")
        assert read_groups(tmp_path / f"{name}.parquet") == expected


def test_a_group_column_that_is_missing_or_a_list_is_refused_by_its_key(tmp_path):
    plain_shard(tmp_path / "hub/train-00000-of-00001.parquet", {"image": pictures(2), "places": [["a"], ["b", "c"]]})
    for name, told in (("place", "group: it has no column place"), ("places", "several groups a row.*by group:")):
        with pytest.raises(DataError, match=told):
            build_index(hub(tmp_path / "hub", group=name, label="none", **ALL), tmp_path / "index.parquet")
