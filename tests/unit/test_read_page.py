"""What was read, as people see it: the table of data sets and models, and the sheet of pictures under their masks."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from visae.config.settings import (
    FigureSettings,
    HuggingFaceSettings,
    ImageFolderSettings,
    ModelSettings,
    SegmentationFolderSettings,
)
from visae.data.index import build_index, read_index
from visae.figures import reading_sheet, what_was_read
from visae.notices import Notice
from visae.vision.card import ModelCard
from visae.vision.model import prepare_model

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    settings = ModelSettings(architecture="test_vit", weights="random", image_size=64)
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
    return folder / "model.json"


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Index of pictures whose upper half is grass; one class is in no mask."""
    root = tmp_path_factory.mktemp("masked")
    for split, n in (("train", 5), ("val", 3)):
        for kind in ("images", "annotations"):
            (root / "data" / kind / split).mkdir(parents=True)
        for number in range(n):
            picture = np.full((64, 96, 3), 40 * number, np.uint8)
            picture[:, :, 0] += len(split)
            Image.fromarray(picture).save(root / f"data/images/{split}/{number}.png")
            mask = np.zeros((64, 96), np.uint8)
            mask[:32] = 1
            Image.fromarray(mask).save(root / f"data/annotations/{split}/{number}.png")
    (root / "data/notes.xyz").write_text("")
    (root / "data/images/train/extra.heic").write_bytes(b"no picture")
    (root / "data/classes.txt").write_text(f"1\tgrass\n2\t{EVIL}\n")
    index = root / "datasets/meadow/index.parquet"
    build_index(SegmentationFolderSettings(kind="segmentation_folder", root=str(root / "data")), index)
    return index


def test_the_table_says_what_was_read_and_nothing_in_it_is_markup(card, masked, tmp_path):
    html, table = tmp_path / "read.html", tmp_path / "read.csv"
    summary = masked.with_name("summary.json")
    what_was_read.write_what_was_read({"meadow": summary}, {"tiny": card}, html, table)
    with table.open() as file:
        rows = {(row["part"], row["what"]): row["value"] for row in csv.DictReader(file)}
    assert rows["data set", "pictures"] == "8: train 5, val 3"
    assert rows["data set", "sizes"] == "96 x 64"
    assert rows["data set", "unlabelled pixels"] == "50.0%"
    assert rows["data set", "classes that never occur"] == EVIL
    assert rows["data set", "left out"].startswith("1 .heic files, such as ")
    assert rows["data set", "in two splits"].startswith("0")
    assert rows["model", "sees"] == "64 x 64 px, centre crop, bicubic"
    assert rows["model", "activation function"] == "gelu"
    page = html.read_text()
    assert EVIL not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert ".heic" in page.split("pictures</th>")[0]  # what is odd stands first


def test_notices_of_models_are_in_the_table(card):
    odd = replace(ModelCard.read(card), notices=(Notice("note", "fine"), Notice("warning", "exact GELU")))
    table = what_was_read.data({}, {"clip": odd})
    assert table.head(2).rows() == [("model", "clip", "warning", "exact GELU"), ("model", "clip", "note", "fine")]


def test_the_sheet_shows_each_picture_over_its_mask(card, masked, tmp_path):
    reading_sheet.draw_reading_sheet(masked, card, tmp_path / "sheet", settings=FigureSettings())
    shown = pl.read_csv(tmp_path / "sheet.csv")
    assert shown["split"].to_list().count("val") == 3
    assert shown.height == 8
    seen = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert seen.std() > 0
    picture, mask = np.full((8, 8, 3), 100, np.uint8), np.repeat([1, 0], 4)[:, None].repeat(8, axis=1)
    stacked = reading_sheet._over_mask(picture, mask, {1: (1.0, 0.0, 0.0), 0: (0.0, 0.0, 0.0)})
    upper, lower = stacked[-8:-4], stacked[-4:]
    assert (stacked[:8] == 100).all()
    assert (upper[..., 0] > 150).all()
    assert (lower < 100).all()


def test_pictures_within_parquet_files_give_the_same_sheet(card, masked, tmp_path):
    rows = {"train": [], "val": []}
    for split, path, mask in read_index(masked)["split", "path", "mask_path"].iter_rows():
        rows[split].append([{"bytes": Path(each).read_bytes(), "path": Path(each).name} for each in (path, mask)])
    for split, of in rows.items():
        table = pyarrow.table({name: [row[place] for row in of] for place, name in enumerate(("image", "mask"))})
        (tmp_path / "hub").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, tmp_path / "hub" / f"{split}.parquet")
    classes = str(masked.parents[2] / "data/classes.txt")
    settings = HuggingFaceSettings(kind="huggingface", root=str(tmp_path / "hub"), mask="mask", classes=classes)
    again = tmp_path / "datasets/meadow/index.parquet"
    build_index(settings, again)
    for name, index in (("folder", masked), ("parquet", again)):
        reading_sheet.draw_reading_sheet(index, card, tmp_path / name, settings=FigureSettings())
    assert (tmp_path / "parquet.png").read_bytes() == (tmp_path / "folder.png").read_bytes()
    assert "val.parquet!mask/0.png@2:0" in (tmp_path / "parquet.csv").read_text()


def test_the_sheet_draws_splits_in_turn_and_another_class_as_long_as_there_is_one(tmp_path):
    for number, name in enumerate(("ant", "bee", "cat")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(np.full((8, 8, 3), 60 * number + i, np.uint8)).save(tmp_path / f"data/{name}/{i}.png")
    settings = ImageFolderSettings(kind="image_folder", root=str(tmp_path / "data"), val_share=0.4, test_share=0)
    build_index(settings, tmp_path / "index.parquet")
    table = reading_sheet.data(read_index(tmp_path / "index.parquet"), seed=0)
    assert table.height == reading_sheet.COLUMNS * reading_sheet.ROWS
    assert table.group_by("split").len()["len"].to_list() == [6, 6]
    assert table.group_by("split", "label_name").len()["len"].to_list() == [2] * 6
    assert table.equals(reading_sheet.data(read_index(tmp_path / "index.parquet"), seed=0))
    assert not table.equals(reading_sheet.data(read_index(tmp_path / "index.parquet"), seed=1))
