"""What summary.json says of a data set: what is left out, unlabelled, there twice, and what is refused."""

import json
import logging
import os
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from visae.config.parse import load_config
from visae.config.settings import DatasetSettings, ImageFolderSettings, ListedFolderSettings, SegmentationFolderSettings
from visae.data.images import SUFFIXES
from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError
from visae.headline import study_headline
from visae.notices import repeat_warnings
from visae.running import running_job

SPLITS = {"train": "train", "val": "val"}
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Grünspecht") for form in ("NFC", "NFD"))


def picture(path: Path, number: int, size: tuple[int, int] = (12, 8), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path, **options)
    return path


def class_folders(root: Path, train: list[str], val: list[str]) -> Path:
    for split, names in (("train", train), ("val", val)):
        for position, name in enumerate(names):
            for number in range(3):
                picture(root / split / name / f"{number}.png", 100 * position + number + 50 * (split == "val"))
    return root


def image_folder(root: Path, **options) -> ImageFolderSettings:
    return ImageFolderSettings(kind="image_folder", root=str(root), **({"splits": SPLITS} | options))


def with_masks(root: Path, masks: list[np.ndarray | Image.Image], classes: str, **options) -> DatasetSettings:
    """One mask a split."""
    for number, (split, mask) in enumerate(zip(("train", "val"), masks, strict=True)):
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        picture(root / "images" / split / "a.jpg", number, image.size)
        (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
        image.save(root / "annotations" / split / "a.png")
    (root / "classes.txt").write_text(classes)
    return SegmentationFolderSettings(kind="segmentation_folder", root=str(root), **options)


def read(settings: DatasetSettings, tmp_path: Path) -> dict:
    build_index(settings, tmp_path / "out" / "index.parquet")
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def said(record: dict, level: str) -> str:
    return "\n".join(notice["text"] for notice in record["notices"] if notice["level"] == level)


def left_out(record: dict) -> dict[str, int]:
    return {entry["what"]: entry["n_files"] for entry in record["left_out"]}


def ids(*rows: int) -> np.ndarray:
    return np.repeat(np.array(rows, dtype=np.uint8)[:, None], 4, axis=1)


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


def test_ids_of_masks_and_classes_that_never_occur(tmp_path):
    masks = [ids(0, 1, 1, 2), ids(255, 1, 1, 3)]
    classes = "1\tsky\n2\ttree\n3\troad\n4\tpole\n"
    record = read(with_masks(tmp_path / "set", masks, classes, ignore_ids=[255]), tmp_path)
    shares = {0: 1 / 8, 1: 1 / 2, 2: 1 / 8, 3: 1 / 8, 255: 1 / 8}
    assert record["mask_ids"] == [{"id": number, "share": share} for number, share in shares.items()]
    assert record["mask_modes"] == {"L": 2}
    assert record["unlabelled_share"] == 1 / 4
    assert record["never"] == ["pole"]
    assert [entry["pixel_share"] for entry in record["classes"]] == [1 / 2, 1 / 8, 1 / 8, 0]
    assert record["classes"][0]["n_images"] == {"train": 1, "val": 1}
    assert record["splits"]["val"]["n_masked"] == 1
    assert "0 (12.5% of their pixels)" in said(record, "warning")
    assert "zero_based: true" in said(record, "warning")
    assert "classes that are in val and not in train: road" in said(record, "warning")


def test_unknown_ids_name_what_they_may_mean(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(0, 1, 255), ids(0, 1, 255)], "1\tsky\n")
    with pytest.raises(DataError, match=r"class ids 255 are not .*shifted by one: set zero_based: true") as error:
        read(settings, tmp_path)
    assert str(error.value).count("zero_based") == 1
    settings = with_masks(tmp_path / "set", [ids(0, 255), ids(0, 255)], "1\tsky\n")
    with pytest.raises(DataError, match=r"class ids 255 .*black and white"):
        read(settings, tmp_path)


def test_a_list_of_classes_from_0_is_refused_without_its_key_and_read_with_it(tmp_path):
    masks, classes = [ids(0, 3), ids(0, 11)], "0\tsky\n1\tpole\n3\troad\n11\tvoid\n"
    with pytest.raises(DataError, match=r"line 1: id 0.*zero_based: true"):
        read(with_masks(tmp_path / "set", masks, classes), tmp_path)
    settings = with_masks(tmp_path / "set", masks, classes, zero_based=True, ignore_ids=[11])
    record = read(settings, tmp_path)
    assert read_classes(tmp_path / "out" / "index.parquet") == {1: "sky", 2: "pole", 4: "road", 12: "void"}
    assert record["never"] == ["pole"]  # void is left out on purpose
    assert record["unlabelled_share"] == 1 / 4
    with pytest.raises(DataError, match="no line has the id 0"):
        read(with_masks(tmp_path / "set", masks, "1\tsky\n", zero_based=True), tmp_path)


def test_ade20k_list_counts_from_1_for_reduced_masks_too(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(0, 1), ids(0, 255)], "", zero_based=True, ignore_ids=[255])
    (tmp_path / "set" / "classes.txt").unlink()
    (tmp_path / "set" / "objectInfo150.txt").write_text("Idx\tName\n1\twall\n2\tbuilding\n3\tsky\n")
    record = read(settings, tmp_path)
    assert {entry["name"]: entry["pixel_share"] for entry in record["classes"]} == {
        "wall": 1 / 2,
        "building": 1 / 4,
        "sky": 0,
    }


def quantized(*rows: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.repeat(np.array(rows, dtype=np.uint8)[:, None], 4, axis=1)).quantize(4)


def test_palettes_are_shown_beside_the_classes(tmp_path):
    mask = Image.fromarray(ids(1, 2))
    mask.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 200])
    record = read(with_masks(tmp_path / "set", [mask, mask], "1\tred\n2\tblue\n"), tmp_path)
    assert record["mask_modes"] == {"P": 2}
    assert "1 #c80000 red, 2 #0000c8 blue" in said(record, "note")
    assert said(record, "warning") == ""


def test_palettes_made_by_quantizing_colours_are_warned_of(tmp_path):
    red, blue, green = (200, 0, 0), (0, 0, 200), (0, 200, 0)
    masks = [quantized(red, red, blue), quantized(blue, blue, green)]
    warned = said(read(with_masks(tmp_path / "set", masks, "1\tred\n2\tblue\n"), tmp_path), "warning")
    assert "the unlabelled id 0 has the colour #" in warned
    assert "an id has another colour than before" in warned


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
)


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


def linked(root: Path, how: str) -> None:
    """Let val share pictures with train."""
    (root / "val").mkdir(exist_ok=True)
    if how == "whole split":
        (root / "val").rmdir()
        (root / "val").symlink_to(root / "train")
    for name in ("ant", "bee"):
        if how == "folder":
            (root / "val" / name).symlink_to(root / "train" / name)
        for number in range(3):
            source, target = root / "train" / name / f"{number}.png", root / "val" / name / f"other{number}.png"
            if how in ("symbolic", "hard", "saved anew"):
                target.parent.mkdir(exist_ok=True)
            if how == "symbolic":
                target.symlink_to(source)
            if how == "hard":
                os.link(source, target)
            if how == "saved anew":
                Image.open(source).save(target, compress_level=0)


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


def test_jobs_that_read_activations_repeat_what_is_wrong_with_their_data(tmp_path, caplog):
    root = class_folders(tmp_path / "set", ["ant", "bee"], [])
    linked(root, "whole split")
    build_index(image_folder(root), tmp_path / "results" / "datasets" / "birds" / "index.parquet")
    caplog.clear()
    manifest = tmp_path / "results" / "activations" / "birds" / "vit" / "layer10" / "manifest.json"
    with caplog.at_level(logging.WARNING):
        repeat_warnings([manifest, tmp_path / "results" / "datasets" / "birds" / "index.parquet"])
    assert caplog.text.count("birds: warning: 12 pictures are in more than one split") == 1


def test_pictures_that_are_there_twice(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], ["ant", "bee"])
    os.link(root / "train" / "ant" / "0.png", root / "train" / "ant" / "again.png")
    os.link(root / "train" / "ant" / "1.png", root / "train" / "bee" / "wrong.png")
    record = read(image_folder(root), tmp_path)
    assert record["n_shared_between_splits"] == 0
    assert "2 pictures are in their split already" in said(record, "note")
    assert "1 pictures are under two labels" in said(record, "warning")
    assert "bee/wrong.png" in said(record, "warning")


def test_what_lies_among_the_masks_and_is_none_is_counted(tmp_path):
    settings = with_masks(tmp_path / "set", [ids(1, 2), ids(1, 2)], "1\tsky\n2\ttree\n")
    masks = tmp_path / "set" / "annotations" / "train"
    Image.fromarray(ids(1)).save(masks / "lone.png")
    Image.fromarray(ids(1)).save(masks / "a.jpg")
    (masks / "a.json").touch()
    assert left_out(read(settings, tmp_path)) == {
        ".json files": 1,
        "masks without a picture": 1,
        "pictures among the masks that are no .png": 1,
    }


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


def test_the_headline_begins_with_what_is_wrong(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], [])
    linked(root, "whole split")
    settings = {
        "results": str(tmp_path / "results"),
        "datasets": {
            "birds": {"kind": "image_folder", "root": str(root), "splits": SPLITS},
            "all": {"kind": "union", "members": ["birds"]},
        },
        "models": {"tiny": {"architecture": "vit_tiny_patch16_224", "weights": "random"}},
        "saes": {"topk": {"variant": "topk"}},
        "studies": {"one": {"model": "tiny", "layer": 10, "train_on": "all", "saes": ["topk"], "describe": ["birds"]}},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(settings))
    loaded = load_config(tmp_path / "study.yaml")
    build_index(loaded.datasets["birds"], tmp_path / "results" / "datasets" / "birds" / "index.parquet")
    lines = study_headline(loaded, "one", loaded.studies["one"])
    assert [line for line in lines if "12 pictures are in more than one split" in line] == [lines[3]]
    assert lines[3].startswith("  Warning, birds: ")


def test_a_job_logs_what_is_wrong_with_its_data(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], [])
    linked(root, "folder")
    read(image_folder(root), tmp_path)
    params = SimpleNamespace(spec="{}")
    job = SimpleNamespace(
        input=[str(tmp_path / "out" / "index.parquet")],
        output=[],
        wildcards={},
        resources={},
        params=params,
        log=[str(tmp_path / "logs" / "job.log")],
    )
    with running_job({"snakemake": job, "__doc__": ""}):
        pass
    assert "WARNING out: warning: 12 pictures are in more than one split" in (tmp_path / "logs" / "job.log").read_text()
