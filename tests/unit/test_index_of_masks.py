"""The index of pictures with masks: segmentation folders, lists of classes, and scenes, which are made."""

import shutil
from pathlib import Path

import numpy as np
import polars
import pytest
from indexed_for_tests import segmentation_folder, summary
from pictures_for_tests import picture
from PIL import Image

from visae.config.settings import ScenesSettings
from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError


def segmentation(root: Path, n: int = 3) -> Path:
    for position, split in enumerate(("train", "val")):
        for number in range(n):
            picture(root / "images" / split / f"{number}.jpg", 100 * position + number)
            (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
            ids = np.random.default_rng(number).integers(0, 3, (8, 12)).astype(np.uint8) * 2
            Image.fromarray(ids).save(root / "annotations" / split / f"{number}.png")
    (root / "classes.txt").write_text("2\tsky\n4\ttree top\n")
    return root


def test_segmentation_folder(tmp_path, index_path):
    root = segmentation(tmp_path / "set")
    picture(root / "images" / "val" / "city" / "deep.png", 55)
    (root / "annotations" / "val" / "city").mkdir()
    Image.new("L", (12, 8), 4).save(root / "annotations" / "val" / "city" / "deep.png")
    build_index(segmentation_folder(root), index_path)
    frame = read_index(index_path)
    assert frame["split"].to_list() == ["train"] * 3 + ["val"] * 4
    assert frame["label"].null_count() == 7
    assert read_classes(index_path) == {2: "sky", 4: "tree top"}
    for path, mask_path in frame.select("path", "mask_path").iter_rows():
        expected = Path(path.replace("/images/", "/annotations/")).with_suffix(".png")
        assert Path(mask_path) == expected
        assert expected.is_file()
    assert list(summary(index_path)["provenance"]["inputs"]) == ["classes.txt"]


def test_ade20ks_own_layout(tmp_path, index_path):
    root = segmentation(tmp_path / "set")
    for kind in ("images", "annotations"):
        (root / kind / "train").rename(root / kind / "training")
        (root / kind / "val").rename(root / kind / "validation")
    (root / "classes.txt").unlink()
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    lines += [f"{n}\t0.1\t{n}\t{n}\t0\tname{n}, other " for n in (1, 2, 3, 4)]
    (root / "objectInfo150.txt").write_text("\n".join(lines) + "\n")
    build_index(segmentation_folder(root, splits={"train": "training", "val": "validation"}), index_path)
    assert read_classes(index_path) == {n: f"name{n}, other" for n in (1, 2, 3, 4)}
    assert summary(index_path)["n_images"] == {"train": 3, "val": 3}


def test_wrong_masks_are_refused_by_name(tmp_path, index_path):
    root = segmentation(tmp_path / "set")
    masks = root / "annotations"
    Image.new("L", (8, 12)).save(masks / "train" / "0.png")
    (masks / "train" / "1.png").unlink()
    Image.new("L", (12, 8), 3).save(masks / "val" / "2.png")
    with pytest.raises(DataError) as caught:
        build_index(segmentation_folder(root), index_path)
    message = str(caught.value)
    assert "3 masks" in message
    assert f"{masks}/train/0.png: the mask has 8 x 12 pixels" in message
    assert f"{masks}/train/1.png: the mask is missing" in message
    assert f"{masks}/val/2.png: class ids 3 are not in" in message
    assert not index_path.exists()


@pytest.mark.parametrize("wrong", [1, 5, 255])
def test_class_ids_not_listed_are_refused(tmp_path, index_path, wrong):
    root = segmentation(tmp_path / "set")
    ids = np.zeros((8, 12), dtype=np.uint8)
    ids[4, 4] = wrong
    Image.fromarray(ids).save(root / "annotations" / "val" / "0.png")
    with pytest.raises(DataError, match=rf"val/0\.png: class ids {wrong} are not"):
        build_index(segmentation_folder(root), index_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 sky\n", r"classes\.txt, line 1"),
        ("1\tsky\nx\ttree\n", "line 2"),
        ("0\tnothing\n", "line 1.*0 stands for unlabelled"),
        ("40000\tfar\n", "32767"),
        ("1\tsky\n1\ttree\n", "line 2.*twice"),
        ("1\tsky\n2\tsky\n", "line 2.*twice"),
        ("\n\n", "no classes"),
        (None, r"classes\.txt is missing"),
    ],
)
def test_wrong_class_lists(tmp_path, index_path, text, message):
    root = segmentation(tmp_path / "set")
    (root / "classes.txt").unlink()
    if text is not None:
        (root / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        build_index(segmentation_folder(root), index_path)


def test_scenes_are_made_beside_the_index_and_move_with_it(tmp_path, index_path):
    settings = ScenesSettings(kind="scenes", train=9, val=4, test=3, image_size=48, seed=2)
    build_index(settings, index_path, seed=5)
    stored = polars.read_parquet(index_path)
    assert not any(path.startswith("/") for path in [*stored["path"], *stored["mask_path"]])
    moved = shutil.move(index_path.parent, tmp_path / "other") / "index.parquet"
    frame = read_index(moved)
    assert all(Path(path).is_file() for path in [*frame["path"], *frame["mask_path"]])
    assert [moved.parent / path for path in stored["path"]] == [Path(path) for path in frame["path"]]
    causes = polars.read_parquet(moved.parent / "pictures" / "causes.parquet").filter("is_largest")
    assert frame["image_id"].to_list() == causes["image_id"].to_list()
    assert frame["split"].to_list() == causes["split"].to_list()
    assert frame["label_name"].to_list() == causes["texture"].to_list()
    assert ["pictures/" + path for path in causes["path"]] == stored["path"].to_list()
    classes = read_classes(moved)
    assert [classes[label] for label in frame["label"]] == frame["label_name"].to_list()
    for label, mask_path in frame.select("label", "mask_path").iter_rows():
        counts = np.bincount(np.asarray(Image.open(mask_path)).ravel(), minlength=10)
        assert counts[0] == 0
        assert counts[1:9].argmax() + 1 == label
    # The two seeds add up.
    build_index(ScenesSettings(kind="scenes", train=9, val=4, test=3, image_size=48, seed=7), index_path)
    assert read_index(index_path)["sha256"].to_list() == frame["sha256"].to_list()


def test_scenes_read_as_a_segmentation_folder_give_the_same_masks(tmp_path, index_path):
    build_index(ScenesSettings(kind="scenes", train=4, val=3, test=1, image_size=48), index_path)
    second = tmp_path / "second" / "index.parquet"
    build_index(segmentation_folder(index_path.parent / "pictures"), second)
    one, other = read_index(index_path).filter(polars.col("split") != "test"), read_index(second)
    assert one.select("path", "split", "mask_path", "sha256").equals(
        other.select("path", "split", "mask_path", "sha256")
    )
    assert read_classes(index_path) == read_classes(second)
