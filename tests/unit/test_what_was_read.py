"""What summary.json says of a data set: what is left out, unlabelled, there twice, and what is refused."""

import logging
import os
import unicodedata
from pathlib import Path

import pytest
from pictures_for_tests import picture
from what_was_read_for_tests import (
    SPLITS,
    class_folders,
    ids,
    image_folder,
    left_out,
    linked,
    read,
    said,
    with_masks,
)

from visae.config.settings import ListedFolderSettings
from visae.data.images import SUFFIXES
from visae.data.index import read_classes, read_index
from visae.errors import DataError
from visae.notices import repeat_warnings

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Grünspecht") for form in ("NFC", "NFD"))


def test_splits_sizes_and_classes(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee", "cat"], ["bee", "cat"])
    picture(root / "train" / "ant" / "wide.png", 1000, (300, 2))
    picture(root / "train" / "ant" / "tiny.png", 1001, (1, 1))
    record = read(image_folder(root), tmp_path)
    assert record["splits"]["train"] == {"n_images": 11, "n_labelled": 11, "n_masked": 0}
    assert record["splits"]["val"] == {"n_images": 6, "n_labelled": 6, "n_masked": 0}
    assert record["sizes"] == {"smallest": [1, 1], "median": [12, 8], "largest": [300, 2]}
    assert record["classes"][0] == {"id": 0, "name": "ant", "n_images": {"train": 5}, "pixel_share": None}
    assert record["unlabelled_share"] is None
    assert record["mask_ids"] == record["never"] == record["left_out"] == []
    assert said(record, "note") == "classes that are in train and not in val: ant"
    assert said(record, "warning") == ""


def test_suffixes_that_pillow_reads_and_those_that_it_does_not(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], ["ant", "bee"])
    for number, name in enumerate(["a.jfif", "b.JPE", "c.avif", "d.jp2", "e.Tif", "f.bmp"]):
        kinds = {".jfif": "JPEG", ".JPE": "JPEG", ".avif": "AVIF", ".jp2": "JPEG2000", ".Tif": "TIFF", ".bmp": "BMP"}
        picture(root / "train" / "ant" / name, 900 + number, format=kinds[Path(name).suffix])
    for name in ("a.HEIC", "b.heic", "c.dng", "notes.txt", "Thumbs.db", "README"):
        (root / "train" / "bee" / name).write_bytes(b"x")
    record = read(image_folder(root), tmp_path)
    assert record["n_images"] == {"train": 12, "val": 6}
    assert left_out(record) == {
        ".heic files": 2,
        ".dng files": 1,
        ".txt files": 1,
        "Thumbs.db files": 1,
        "files without a suffix": 1,
    }
    assert "2 .heic files" in said(record, "warning")
    assert ".dng" in said(record, "warning")
    assert ".txt" not in said(record, "warning")
    assert not SUFFIXES & {".pdf", ".eps", ".ps", ".mpg", ".h5", ".ico", ".psd"}


SERVICE = (
    "@eaDir",
    "__MACOSX",
    ".thumbnails",
    "#recycle",
    "$RECYCLE.BIN",
    "lost+found",
    ".ipynb_checkpoints",
    "@EADIR",
    "Catalog Previews.lrdata",
    "found.000",
)


def test_what_is_no_file_and_what_is_not_downloaded_is_said(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], ["ant", "bee"])
    os.mkfifo(root / "train" / "ant" / "pipe.png")
    for name in (".7.jpg.icloud", ".8.jpg.icloud", "9.jpg.crdownload", ".hidden.jpg"):
        (root / "train" / "bee" / name).write_bytes(b"x")
    record = read(image_folder(root), tmp_path)
    assert left_out(record) == {
        "hidden .icloud files, which are not downloaded": 2,
        ".crdownload files": 1,
        "hidden files": 1,
        "pipes, sockets and devices": 1,
    }
    assert "2 hidden .icloud files" in said(record, "warning")
    assert "1 .crdownload files" in said(record, "warning")
    assert "1 hidden files" not in said(record, "warning")


@pytest.mark.parametrize("labels", ["folder", "none"])
@pytest.mark.parametrize("splits", [{}, SPLITS])
def test_service_folders_are_skipped_and_counted_at_every_depth(tmp_path, labels, splits):
    root = class_folders(tmp_path / "set", ["ant", "bee"], ["ant", "bee"])
    inside = root / ("train" if splits or labels == "folder" else "")
    for number, name in enumerate(SERVICE):
        for place in (inside, inside / "ant", inside / "ant" / "deep"):
            picture(place / name / "0.png" / "thumb.jpg", 800 + number)
    picture(inside / "ant" / "deep" / "own.png", 700)
    (inside / "bee").mkdir(exist_ok=True)
    (inside / "bee" / "._0.png").write_bytes(b"\0\5\x16\7")
    settings = image_folder(root if splits else inside, splits=splits, labels=labels, val_share=0.3, test_share=0.2)
    record = read(settings, tmp_path)
    assert {name: n for name, n in left_out(record).items() if "folders" in name} == {
        f"files in {name} folders": 3 for name in SERVICE
    }
    assert left_out(record)["._ files of macOS"] == 1
    assert not any("thumb" in path for path in read_index(tmp_path / "out" / "index.parquet")["path"])
    if labels == "folder":
        assert "1 pictures lie deeper than their class folder" in said(record, "note")
        assert sorted(read_classes(tmp_path / "out" / "index.parquet").values()) == ["ant", "bee"]


def test_pictures_beside_class_folders_are_said(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], ["ant", "bee"])
    picture(root / "train" / "lost.png", 400)
    record = read(image_folder(root), tmp_path)
    assert left_out(record) == {"pictures beside the class folders": 1}
    assert "lost.png" in said(record, "warning")


def test_names_composed_unlike_are_one_class(tmp_path):
    root = class_folders(tmp_path / "set", ["Amsel", COMPOSED], ["Amsel", DECOMPOSED])
    picture(root / "train" / DECOMPOSED / "more.png", 555)
    assert len(os.listdir(root / "train")) == 3
    record = read(image_folder(root), tmp_path)
    assert [entry["name"] for entry in record["classes"]] == ["Amsel", COMPOSED]
    assert record["classes"][1]["n_images"] == {"train": 4, "val": 3}
    with pytest.raises(DataError, match="twice"):
        read(with_masks(tmp_path / "masks", [ids(1)] * 2, f"1\t{COMPOSED}\n2\t{DECOMPOSED}\n"), tmp_path)


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("cat", "cat "), ("a  b", "a b"), ("cat", "ca\u200bt")])
def test_names_that_look_alike_are_named(tmp_path, one, other):
    root = class_folders(tmp_path / "set", [one, other], [one, other])
    warned = said(read(image_folder(root), tmp_path), "warning")
    assert repr(one) in warned
    assert repr(other) in warned
    with pytest.raises(DataError, match="val has classes that train does not have") as error:
        read(image_folder(class_folders(tmp_path / "apart", [one, "dog"], [other, "dog"])), tmp_path)
    assert repr(one) in str(error.value)
    assert repr(other) in str(error.value)


def test_labels_that_were_missed_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"n02.*set labels: none"):
        read(image_folder(class_folders(tmp_path / "one", ["n02"], ["n02"])), tmp_path)
    with pytest.raises(DataError, match=r"'ant', 'bee'.*'n01', 'n02'"):
        read(image_folder(class_folders(tmp_path / "other", ["n01", "n02"], ["ant", "bee"])), tmp_path)
    root = class_folders(tmp_path / "flat", ["ant", "bee"], [])
    picture(root / "val" / "1.png", 3)
    with pytest.raises(DataError, match=r"flat/val: it has no class folders"):
        read(image_folder(root), tmp_path)


@pytest.mark.parametrize("how", ["whole split", "folder", "symbolic", "hard", "saved anew"])
@pytest.mark.parametrize("options", [{}, {"hashes": False}, {"hashes": False, "check": "size"}])
def test_pictures_that_splits_share_are_counted_and_said(tmp_path, caplog, how, options):
    root = class_folders(tmp_path / "set", ["ant", "bee"], [])
    linked(root, how)
    record = read(image_folder(root, **options), tmp_path)
    if how == "saved anew" and options.get("check") == "size":
        assert record["n_shared_between_splits"] is None
        return
    assert record["n_shared_between_splits"] == 12
    assert [Path(path).parts[-3] for path in record["shared_example"]] == ["train", "val"]
    assert "12 pictures are in more than one split" in said(record, "warning")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        repeat_warnings([tmp_path / "out" / "index.parquet", tmp_path / "model.json"])
    assert "out: warning: 12 pictures are in more than one split" in caplog.text


def test_pictures_that_are_there_twice(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], ["ant", "bee"])
    os.link(root / "train" / "ant" / "0.png", root / "train" / "ant" / "again.png")
    os.link(root / "train" / "ant" / "1.png", root / "train" / "bee" / "wrong.png")
    record = read(image_folder(root), tmp_path)
    assert record["n_shared_between_splits"] == 0
    assert "2 pictures are in their split already" in said(record, "note")
    assert "1 pictures are under two labels" in said(record, "warning")
    assert "bee/wrong.png" in said(record, "warning")


def test_pictures_that_no_list_names_are_counted(tmp_path):
    root = tmp_path / "set"
    for number in range(1, 5):
        picture(root / "images" / "x" / f"{number}.jpg", number)
    lists = {
        "images.txt": "1 x/1.jpg\n2 x/2.jpg\n3 x/3.jpg\n",
        "image_class_labels.txt": "1 1\n2 2\n3 1\n",
        "train_test_split.txt": "1 1\n2 1\n3 0\n",
        "classes.txt": "1 ant\n2 bee\n",
    }
    for name, text in lists.items():
        (root / name).write_text(text)
    record = read(ListedFolderSettings(kind="listed_folder", root=str(root)), tmp_path)
    assert record["n_images"] == {"train": 2, "val": 1}
    assert left_out(record) == {"pictures that are in no list": 1}
    (root / "train_test_split.txt").write_text("1 1\n2 0\n3 0\n")
    with pytest.raises(DataError, match="val has classes that train does not have: 'bee'"):
        read(ListedFolderSettings(kind="listed_folder", root=str(root)), tmp_path)
