"""The index of every kind of data set, and what is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars
import pyarrow.parquet
import pytest
from indexed_for_tests import segmentation_folder, summary
from pictures_for_tests import picture
from PIL import Image

from visae.config.settings import ImageFolderSettings, UnionSettings
from visae.data.index import SCHEMA, build_index, read_classes, read_index
from visae.errors import DataError
from visae.files import file_sha256


def folders(root: Path, names: list[str], n: int) -> Path:
    for position, name in enumerate(names):
        for number in range(n):
            picture(root / name / f"{number:03d}.png", 1000 * position + number)
    return root


def image_folder(root: Path | str, **options) -> ImageFolderSettings:
    return ImageFolderSettings(kind="image_folder", root=str(root), **options)


def test_image_folder_with_splits(tmp_path, index_path):
    root = tmp_path / "set"
    folders(root / "training", ["ant", "crow", "wren"], 2)
    folders(root / "held", ["ant", "wren"], 1)
    build_index(image_folder(root, splits={"val": "held", "train": "training"}), index_path)
    frame = read_index(index_path)
    assert dict(frame.schema) == SCHEMA
    assert frame["image_id"].to_list() == list(range(8))
    assert frame["split"].to_list() == ["train"] * 6 + ["val"] * 2
    assert frame["label_name"].to_list() == ["ant", "ant", "crow", "crow", "wren", "wren", "ant", "wren"]
    assert frame["label"].to_list() == [0, 0, 1, 1, 2, 2, 0, 2]
    assert read_classes(index_path) == {0: "ant", 1: "crow", 2: "wren"}
    assert frame["mask_path"].null_count() == 8
    assert set(zip(frame["width"], frame["height"], strict=True)) == {(12, 8)}
    for path, sha256 in frame.select("path", "sha256").iter_rows():
        assert file_sha256(path) == sha256
    record = summary(index_path)
    assert record["kind"] == "image_folder"
    assert record["n_images"] == {"train": 6, "val": 2}
    assert record["n_skipped"] == 0
    assert record["index_sha256"] == file_sha256(index_path)
    assert record["provenance"]["settings"]["root"] == str(root)


def test_split_order_and_other_splits(tmp_path, index_path):
    root = tmp_path / "set"
    for name in "abcde":
        folders(root / name, ["x"], 1)
        picture(root / name / "x" / "own.png", ord(name))
    splits = {"zoo": "a", "test": "b", "extra": "c", "val": "d", "train": "e"}
    build_index(image_folder(root, splits=splits, labels="none"), index_path)
    assert read_index(index_path)["split"].unique(maintain_order=True).to_list() == [
        "train",
        "val",
        "test",
        "extra",
        "zoo",
    ]


def test_order_is_that_of_relative_paths(tmp_path, index_path):
    """As texts, slashes included: what one sorts a list of paths by."""
    names = ["a/1", "a-b/1", "a b/1", "a/b/1", "a/b.c/1", "a/b", "a/B", "aé/1", "a.png/x", "a/0/z/1"]
    for number, name in enumerate(names):
        picture(tmp_path / "set" / f"{name}.png", number)
    for labels in ("folder", "none"):
        build_index(image_folder(tmp_path / "set", labels=labels, val_share=0.0, test_share=0.0), index_path)
        found = [Path(path).relative_to(tmp_path / "set").as_posix() for path in read_index(index_path)["path"]]
        assert found == sorted(f"{name}.png" for name in names)
    assert read_classes(index_path) == {}


MEASURE = """
import sys
from pathlib import Path
from visae.config.settings import ImageFolderSettings
from visae.data.index import build_index

def peak():
    # Of this process alone: ru_maxrss would start from that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

for name in ("few", "few", "many"):  # the first warms up allocators and imports
    root = f"{sys.argv[1]}/{name}"
    build_index(ImageFolderSettings(kind="image_folder", root=root), f"{sys.argv[1]}/out/{name}.parquet")
    print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """Both have more pictures than a row group. A row in Python objects is over 1000 bytes, its path and hash 300."""
    tiny = picture(tmp_path / "tiny.png", size=(1, 1))
    sizes = {"few": 10_000, "many": 30_000}
    for name, size in sizes.items():
        for number in range(size):
            if number % 200 == 0:
                folder = tmp_path / name / f"class-{number:06d}"
                folder.mkdir(parents=True)
            os.link(tiny, folder / f"{number:06d}.png")
    # Arrow's own allocator keeps some megabytes more or less, as threads happen to meet.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, "-c", MEASURE, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    _, few, many = map(int, done.stdout.split())
    assert len(read_index(tmp_path / "out" / "many.parquet")) == sizes["many"]
    assert (many - few) / (sizes["many"] - sizes["few"]) < 300


def test_row_groups_are_written_as_they_fill(tmp_path, index_path):
    tiny = picture(tmp_path / "tiny.png", size=(1, 1))
    (tmp_path / "set").mkdir()
    for number in range(9000):
        os.link(tiny, tmp_path / "set" / f"{number:04d}.png")
    settings = image_folder(tmp_path / "set", labels="none", val_share=0.5, test_share=0.0)
    build_index(settings, index_path)
    frame = read_index(index_path)
    parquet = pyarrow.parquet.ParquetFile(index_path)
    assert [parquet.metadata.row_group(group).num_rows for group in range(2)] == [8192, 808]
    assert frame["image_id"].to_list() == list(range(9000))
    assert frame["path"].n_unique() == 9000
    for split in ("train", "val"):
        ids = frame.filter(split=split)["image_id"]
        assert ids[-1] - ids[0] + 1 == len(ids)
        assert frame.filter(split=split)["path"].is_sorted()
    assert summary(index_path)["n_images"] == dict(frame["split"].value_counts().sort("split").iter_rows())
    assert summary(index_path)["n_shared_between_splits"] == 9000


def test_same_folder_same_bytes(tmp_path, index_path):
    root = folders(tmp_path / "set", ["a", "b"], 20)
    build_index(image_folder(root), index_path)
    first = index_path.read_bytes()
    build_index(image_folder(root), index_path)
    assert index_path.read_bytes() == first


def drawn(index_path: Path) -> dict[str, str]:
    return {
        "/".join(Path(path).parts[-2:]): split for path, split in read_index(index_path)["path", "split"].iter_rows()
    }


def test_drawn_splits_have_their_shares_and_stay_when_pictures_are_added(tmp_path, index_path):
    root = folders(tmp_path / "set", ["a", "b"], 200)
    settings = image_folder(root, val_share=0.3, test_share=0.2)
    build_index(settings, index_path)
    before = drawn(index_path)
    for name in "ab":
        found = [split for path, split in before.items() if path.startswith(name)]
        assert abs(found.count("val") - 60) < 26  # four standard deviations
        assert abs(found.count("test") - 40) < 23
    folders(root, ["c"], 10)
    picture(root / "a" / "000_first.png", 99_999)
    build_index(settings, index_path)
    after = drawn(index_path)
    assert len(after) == 411
    assert {path: after[path] for path in before} == before
    shutil.move(root, tmp_path / "moved")
    build_index(image_folder(tmp_path / "moved", val_share=0.3, test_share=0.2), index_path)
    assert drawn(index_path) == after
    build_index(image_folder(tmp_path / "moved", val_share=0.3, test_share=0.2), index_path, seed=1)
    other = drawn(index_path)
    assert sum(other[path] != after[path] for path in after) > 100
    build_index(image_folder(tmp_path / "moved", val_share=0.3, test_share=0.2, seed=1), index_path)
    assert drawn(index_path) == other


def test_shares_of_zero_put_everything_in_train(tmp_path, index_path):
    build_index(image_folder(folders(tmp_path / "set", ["a", "b"], 15), val_share=0.0, test_share=0.0), index_path)
    assert summary(index_path)["n_images"] == {"train": 30}


def test_shares_that_leave_nothing_are_refused(tmp_path, index_path):
    root = folders(tmp_path / "set", ["a"], 3)
    with pytest.raises(DataError, match="val_share and test_share"):
        build_index(image_folder(root, val_share=0.5, test_share=0.5), index_path)


def test_no_labels_in_a_flat_folder(tmp_path, index_path):
    root = tmp_path / "flat"
    for number, name in enumerate(["B.JPEG", "a.Jpg", "c d.png", "é.png", "deep/er/e.png"]):
        picture(root / name, number)
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.jpg").touch()
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "x.jpg").touch()
    build_index(image_folder(root, labels="none", val_share=0.0, test_share=0.0), index_path)
    frame = read_index(index_path)
    assert [Path(path).name for path in frame["path"]] == ["B.JPEG", "a.Jpg", "c d.png", "e.png", "é.png"]
    assert frame["label"].null_count() == frame["label_name"].null_count() == 5
    assert read_classes(index_path) == {}


def test_links_are_followed_but_not_in_circles(tmp_path, index_path):
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "class").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "elsewhere")
    picture(tmp_path / "set" / "other" / "b.png", 1)
    build_index(image_folder(tmp_path / "set", val_share=0.0, test_share=0.0), index_path)
    assert read_index(index_path)["label_name"].to_list() == ["class", "other"]
    (found,) = summary(index_path)["left_out"]
    assert found["n_files"] == 1
    assert "link" in found["what"]
    assert found["example"].endswith("class/circle")


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("${NOWHERE_SET}/x", "root.*NOWHERE_SET.*not set"),
        ("", "root.*not set"),
        ("/no/such/place", "root: /no/such/place: there is no such folder"),
    ],
)
@pytest.mark.parametrize("make", [image_folder, segmentation_folder])
def test_missing_root(index_path, root, message, make):
    with pytest.raises(DataError, match=f"datasets: birds: {message}"):
        build_index(make(root), index_path)
    assert not index_path.exists()


def test_class_folder_without_pictures(tmp_path, index_path):
    root = folders(tmp_path / "set", ["full"], 2)
    (root / "hollow").mkdir()
    with pytest.raises(DataError, match="hollow: it has no pictures"):
        build_index(image_folder(root), index_path)


def test_no_class_folders(tmp_path, index_path):
    picture(tmp_path / "set" / "a.png")
    with pytest.raises(DataError, match="labels: none"):
        build_index(image_folder(tmp_path / "set"), index_path)


def test_missing_and_repeated_split_folders(tmp_path, index_path):
    root = folders(tmp_path / "set" / "train", ["a"], 2).parent
    with pytest.raises(DataError, match=r"splits: val.*held: there is no such folder"):
        build_index(image_folder(root, splits={"train": "train", "val": "held"}), index_path)
    with pytest.raises(DataError, match="same folder"):
        build_index(image_folder(root, splits={"train": "train", "val": "./train/"}), index_path)


def damaged(root: Path) -> list[Path]:
    """Files that look like pictures and are none."""
    whole = picture(root / "a" / "whole.png", 5, (64, 64)).read_bytes()
    contents = {"cut.png": whole[:1000], "empty.jpg": b"", "text.jpg": b"hello"}
    for name, content in contents.items():
        (root / "a" / name).write_bytes(content)
    (root / "a" / "dangling.png").symlink_to(root / "gone.png")
    return [root / "a" / name for name in sorted([*contents, "dangling.png"])]


def test_unreadable_pictures_are_skipped_and_listed(tmp_path, index_path):
    root = folders(tmp_path / "set", ["a"], 30)
    bad = damaged(root)
    build_index(image_folder(root, max_unreadable=0.2, labels="none"), index_path)
    frame = read_index(index_path)
    assert len(frame) == 31
    assert frame["image_id"].to_list() == list(range(31))
    skipped = polars.read_csv(index_path.with_name("skipped.csv"))
    assert sorted(skipped["path"].to_list()) == [str(path) for path in bad]
    assert all(skipped["reason"].str.len_chars() > 5)
    assert summary(index_path)["n_skipped"] == 4


def test_too_many_unreadable_pictures_are_refused(tmp_path, index_path):
    root = folders(tmp_path / "set", ["a"], 30)
    damaged(root)
    with pytest.raises(DataError, match=r"4 of 35 pictures.*max_unreadable: 0\.1.*skipped\.csv.*cut\.png"):
        build_index(image_folder(root, max_unreadable=0.1, labels="none"), index_path)
    assert not index_path.exists()
    assert len(polars.read_csv(index_path.with_name("skipped.csv"))) == 4


def test_nothing_readable_is_refused_whatever_is_allowed(tmp_path, index_path):
    (tmp_path / "set" / "a").mkdir(parents=True)
    for number in range(40):
        (tmp_path / "set" / "a" / f"{number}.png").touch()
    with pytest.raises(DataError, match="40 of 40"):
        build_index(image_folder(tmp_path / "set", max_unreadable=1.0, labels="none"), index_path)


def test_skipped_is_empty_but_has_its_header(tmp_path, index_path):
    build_index(image_folder(folders(tmp_path / "set", ["a"], 9), val_share=0.0, labels="none"), index_path)
    assert index_path.with_name("skipped.csv").read_text() == "path,reason\n"


def test_names_that_are_not_utf8_are_skipped(tmp_path, index_path):
    root = folders(tmp_path / "set", ["a"], 9)
    os.rename(root / "a" / "000.png", os.fsencode(root / "a") + b"/\xff.png")
    build_index(image_folder(root, max_unreadable=0.5, labels="none"), index_path)
    assert len(read_index(index_path)) == 8
    assert "UTF-8" in polars.read_csv(index_path.with_name("skipped.csv"))["reason"][0]


def test_size_is_that_after_exif_rotation(tmp_path, index_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "set").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "set" / "a.jpg", exif=exif)
    build_index(image_folder(tmp_path / "set", labels="none", val_share=0.0, test_share=0.0), index_path)
    assert read_index(index_path)["width", "height"].row(0) == (20, 30)


def test_pictures_shared_between_splits_are_counted(tmp_path, index_path):
    root = tmp_path / "set"
    folders(root / "train", ["a"], 5)
    folders(root / "val", ["a"], 2)
    picture(root / "val" / "a" / "new.png", 77)
    build_index(image_folder(root, splits={"train": "train", "val": "val"}, labels="none"), index_path)
    assert summary(index_path)["n_shared_between_splits"] == 4


def test_union_is_refused(index_path):
    with pytest.raises(DataError, match="union"):
        build_index(UnionSettings(kind="union", members=["a", "b"]), index_path)
