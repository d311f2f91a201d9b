"""The doctor's look at data sets."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doctor_for_tests import STUDY, class_folders, look, no_root, picture, said
from PIL import Image

from visae.activations.given import write_store


def masked_folders(root: Path, top: int = 1) -> dict[str, Any]:
    """Pictures with masks of two classes."""
    for split in ("train", "val"):
        for number in range(12):
            picture(1000 * (split == "val") + number, root / "images" / split / f"{number}.png")
            mask = np.full((48, 64), top, np.uint8)
            mask[24:] = 2
            folder = root / "annotations" / split
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / f"{number}.png")
    (root / "classes.txt").write_text("1\tsky\n2\troad\n")
    return {"kind": "segmentation_folder", "root": str(root)}


def no_val_class(root: Path) -> None:
    (root / "val/cat").rename(root / "val/bird")
    (root / "val/dog").rename(root / "val/cow")


def one_val_class(root: Path) -> None:
    (root / "val/cat").rename(root / "val/bird")


def one_class(root: Path) -> None:
    for split in ("train", "val"):
        for path in (root / split / "dog").iterdir():
            path.rename(root / split / "cat" / path.name)
        (root / split / "dog").rmdir()


def val_is_train(root: Path) -> None:
    subprocess.run(["rm", "-r", str(root / "val")], check=True)
    (root / "val").symlink_to("train")


def val_links_to_pictures(root: Path) -> None:
    for path in (root / "val/cat").iterdir():
        path.unlink()
        path.symlink_to(next((root / "train/cat").iterdir()))


def damaged(root: Path) -> None:
    path = next((root / "train/cat").iterdir())
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("harm", "level", "message"),
    [
        (no_root, "wrong", "there is no such folder; set root to where the pictures are"),
        (no_val_class, "wrong", "bird"),
        (one_val_class, "wrong", "bird"),
        (one_class, "wrong", "all pictures are of one class"),
        (val_is_train, "wrong", "12 files are in train and in val, links followed"),
        (val_links_to_pictures, "wrong", "files are in train and in val, links followed"),
        (damaged, "wrong", "1 of 24 pictures looked at are unreadable, such as "),
    ],
)
def test_class_folders_are_looked_at(harm: Callable[[Path], None], level: str, message: str, here: Path) -> None:
    dataset = class_folders(here / "data")
    harm(here / "data")
    assert message in said(look(dataset), level)


def test_few_unreadable_pictures_are_odd_where_the_configuration_allows_them(here: Path) -> None:
    dataset = class_folders(here / "data")
    damaged(here / "data")
    found = look(dataset | {"max_unreadable": 0.1})
    assert said(found, "wrong") == ""
    assert "they will be skipped" in said(found, "odd")


def test_a_task_needs_val_and_labels(here: Path) -> None:
    dataset = class_folders(here / "data")
    found = look(dataset | {"splits": {"train": "train"}})
    assert "no picture is in the split val, on which classification is measured" in said(found, "wrong")
    rows = "".join(f"{path},{path.parts[-3]}\n" for path in sorted((here / "data").rglob("*.png")))
    (here / "table.csv").write_text(f"path,split\n{rows}")
    found = look({"kind": "table", "file": str(here / "table.csv")})
    assert "studies: s: classification: no picture of train has labels" in said(found, "wrong")


@pytest.mark.parametrize(
    ("labels", "level", "message"),
    [
        ({"train": ["cat", "dog"], "val": ["cat", "dog"]}, "odd", ""),
        ({"train": ["cat"], "val": ["cat"]}, "wrong", "of one class"),
        ({"train": ["cat", "dog"], "val": ["bird", "cow"]}, "wrong", "bird"),
        ({"train": ["cat", "dog"], "val": ["cat", "bird"]}, "wrong", "bird"),
        ({"train": ["cat", "dog"], "val": ["cat"]}, "odd", "1 classes of train are not in val: dog"),
    ],
)
def test_labels_are_compared_between_splits(labels: dict[str, list[str]], level: str, message: str, here: Path) -> None:
    rows = ["path,split,label"]
    for split, names in labels.items():
        for number in range(10):
            path = picture(100 * (split == "val") + number, here / "data" / f"{split}-{number}.png")
            rows.append(f"{path},{split},{names[number % len(names)]}")
    (here / "table.csv").write_text("\n".join(rows) + "\n")
    found = look({"kind": "table", "file": str(here / "table.csv")})
    assert message in said(found, level)
    assert bool(said(found, "wrong")) == (level == "wrong")


def test_splits_that_are_drawn_may_leave_a_class_to_val_alone(here: Path) -> None:
    for number in range(40):
        picture(number, here / "data" / f"class-{number}" / "only.png")
    found = look({"kind": "image_folder", "root": str(here / "data"), "val_share": 0.4, "test_share": 0})
    assert "classes of val are not in train: class-" in said(found, "wrong")


def test_a_data_set_that_no_study_uses_is_looked_at_and_stops_nothing(here: Path) -> None:
    other = {"kind": "image_folder", "root": str(here / "gone")}
    found = look(class_folders(here / "data"), datasets__other=other)
    assert said(found, "wrong") == ""
    assert "gone: there is no such folder" in said({"": found["data set: other"]}, "odd")


def test_pictures_that_one_data_set_measures_on_and_another_trains_on_are_odd(here: Path) -> None:
    class_folders(here / "data")
    (here / "again").symlink_to(here / "data")
    whole = {"kind": "image_folder", "root": str(here / "again"), "labels": "none", "val_share": 0, "test_share": 0}
    other = class_folders(here / "other")
    for union, expected in (
        (
            ["whole", "other"],
            "studies: s: 12 pictures of val of d are in train of whole, on which its SAEs are trained",
        ),
        (["other"], ""),
    ):
        found = look(
            class_folders(here / "data"),
            datasets__whole=whole,
            datasets__other=other,
            datasets__all={"kind": "union", "members": union},
            studies__s__train_on="all",
        )
        assert [finding.text.partition(": what")[0] for finding in found["data sets together"]] == (
            [expected] if expected else []
        )


def test_a_sample_shows_the_first_and_full_finds_copies_of_bytes(here: Path) -> None:
    dataset = class_folders(here / "data", 30)
    copied = sorted((here / "data/train/cat").iterdir())[0]
    (here / "data/val/dog/copy.png").write_bytes(copied.read_bytes())
    found = look(dataset, sample=12)
    assert "12 pictures looked at" in said(found, "fine")
    assert said(found, "wrong") == ""
    found = look(dataset, sample=None)
    assert "61 pictures looked at" in said(found, "fine")
    assert f"2 of 61 pictures looked at are in more than one split, such as {copied}" in said(found, "wrong")


@pytest.mark.parametrize(("top", "message"), [(1, ""), (7, "24 of 24 masks looked at are wrong")])
def test_masks_are_looked_at(top: int, message: str, here: Path) -> None:
    study = copy.deepcopy(STUDY["studies"]["s"]) | {"classification": None, "segmentation": "d"}
    found = look(masked_folders(here / "data", top), studies={"s": study})
    assert message in said(found, "wrong")
    assert bool(said(found, "wrong")) == bool(message)
    assert "val 12 pictures (0 labelled, 12 with masks); 2 classes" in said(found, "fine")


def test_notices_of_an_earlier_index_are_said_again(here: Path) -> None:
    dataset = class_folders(here / "data")
    (here / "results/datasets/d").mkdir(parents=True)
    notices = [
        {"level": "warning", "text": "3 masks are upside down"},
        {"level": "note", "text": "all pictures are red"},
    ]
    (here / "results/datasets/d/summary.json").write_text(
        json.dumps({"notices": notices, "n_shared_between_splits": 2, "n_images": {"train": 12, "val": 12}})
    )
    found = look(dataset)
    assert "3 masks are upside down" in said(found, "odd")
    assert "2 pictures are in more than one split" in said(found, "odd")
    assert "all pictures are red" in said(found, "fine")


def test_given_activations_are_looked_at(here: Path) -> None:
    values = np.random.default_rng(0).standard_normal((20, 5, 16)).astype(np.float32)
    write_store(here / "store", values, [-1, *range(4)], {"train": 15, "val": 5})
    study = {"layer": 0, "train_on": "d", "saes": ["topk"], "describe": ["d"]}
    given = {"studies": {"s": study}, "models": {}}
    found = look({"kind": "activations", "root": str(here / "store")}, **given)
    assert "a store of 20 pictures" in said(found, "fine")
    (here / "store/manifest.json").unlink()
    found = look({"kind": "activations", "root": str(here / "store")}, **given)
    assert "no column 'image_id'" not in said(found, "wrong")
    found = look({"kind": "activations", "root": str(here / "nothing")}, **given)
    assert "no Parquet files and no manifest.json" in said(found, "wrong")
