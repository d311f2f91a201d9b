"""Pictures within tars: keys, splits, and what is refused. `test_dataset_kinds.py` tests what all kinds share."""

import io
from pathlib import Path

import numpy as np
import pytest
from indexed_for_tests import said, summary
from PIL import Image
from webdatasets_for_tests import ALL, WHOLE, png, tar, webdataset

from visae.data.images import open_image
from visae.data.index import build_index, read_index
from visae.errors import DataError


def test_order_is_that_of_tars_and_members(tmp_path, index_path):
    root = tmp_path / "set"
    tar(root / "b-10.tar", [("z.jpg", png(0)), ("a.JPG", png(1))])
    tar(root / "b-09.tar", [("m/1.2.png", png(2)), ("m/0.png", png(3))])
    tar(root / "a.tar", [("x.png", png(4))])
    build_index(webdataset(root, splits={"val": "a.tar", "train": "b-*.tar"}), index_path)
    frame = read_index(index_path)
    names = [path.rpartition("/set/")[2].rpartition("@")[0] for path in frame["path"]]
    assert names == ["b-09.tar!m/1.2.png", "b-09.tar!m/0.png", "b-10.tar!z.jpg", "b-10.tar!a.JPG", "a.tar!x.png"]
    assert frame["split"].to_list() == ["train"] * 4 + ["val"]
    assert frame["label"].null_count() == 5
    for number, path in zip((2, 3, 0, 1, 4), frame["path"], strict=True):
        expected = np.asarray(Image.open(io.BytesIO(png(number))))
        np.testing.assert_array_equal(np.asarray(open_image(path)), expected)


def test_splits_are_drawn_by_key_whatever_the_tars(tmp_path, index_path):
    members = [(f"{number:04d}.png", png(number % 5)) for number in range(200)]

    def drawn(root: Path) -> dict[str, str]:
        build_index(webdataset(root, val_share=0.3, test_share=0.0, check="size"), index_path)
        rows = read_index(index_path)["path", "split"].iter_rows()
        return {path.partition(".tar!")[2][:4]: split for path, split in rows}

    tar(tmp_path / "one" / "all.tar", members)
    for start in range(0, 200, 50):
        tar(tmp_path / "many" / f"part-{start}" / "own.tar", members[start : start + 50][::-1])
    one = drawn(tmp_path / "one")
    assert len(one) == 200
    assert abs(list(one.values()).count("val") - 60) < 26  # four standard deviations
    assert drawn(tmp_path / "many") == one


def test_what_is_no_picture_is_left_out(tmp_path, index_path):
    members = [("._0.png", b""), ("0.depth.png", png(9)), ("0.png", png(0)), ("0.txt", b"hello"), ("meta.json", b"{}")]
    tar(tmp_path / "set" / "all.tar", [("README", b"hi"), *members])
    build_index(webdataset(tmp_path / "set", val_share=0.0, test_share=0.0), index_path)
    assert ["!0.png@" in path for path in read_index(index_path)["path"]] == [True]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*WHOLE, ("0.cls", b"1")], r"all\.tar: the key 0 comes twice"),
        ([*WHOLE, WHOLE[1]], r"all\.tar: 1\.png comes twice"),
        (
            [("0.png", png(0)), ("0.jpg", png(0))],
            r"the key 0 has 2 pictures: 0\.png and 0\.jpg; .*first dot.*leave one",
        ),
        (
            [("0.mask.png", png(0)), ("0.seg.png", png(0))],
            r"the key 0 has 2 masks: 0\.mask\.png and 0\.seg\.png; .*leave one",
        ),
        ([*WHOLE, ("2.mask.png", png(0))], "the key 2 has a mask and no picture"),
        ([*WHOLE, ("1.cls", b"3")], r"1 of all\.tar has a label and 0 of all\.tar has none"),
        ([*WHOLE, ("1.cls", b"\xff")], r"1\.cls: it is no UTF-8 text"),
        ([*WHOLE, ("1.json", b"{")], r"1\.json: it is no JSON"),
        ([*WHOLE, ("1.json", b'{"label": 1, "label": 2}')], r"1\.json: it is no JSON: a key comes twice in it"),
        ([*WHOLE, ("1.json", b'{"label": [1]}')], r"1\.json: label is \[1\]; make it an integer or a text"),
        ([*WHOLE, ("1.json", b'{"label": true}')], r"1\.json: label is true; make it an integer or a text"),
        ([*WHOLE, ("1.json", b'{"label": 1, "label_name": 5}')], r"1\.json: label_name is 5; make it a text"),
        ([*WHOLE, ("1.mask.png", png(0))], r"1 of all\.tar has a mask; set classes"),
        ([("0.txt", b"hi")], "its tar files have no pictures"),
    ],
)
def test_wrong_tars_are_refused(tmp_path, index_path, members, message):
    tar(tmp_path / "set" / "all.tar", members)
    with pytest.raises(DataError, match=message):
        build_index(webdataset(tmp_path / "set"), index_path)
    assert not index_path.exists()


def test_members_that_are_left_out_are_counted_by_suffix(tmp_path, index_path):
    members = []
    for number in range(3):
        kinds = {"png": png(number), "cls": str(number % 2).encode(), "txt": b"hi", "depth.png": png(9), "id": b"7"}
        members += [(f"{number}.{kind}", content) for kind, content in kinds.items()]
        members += [(f"._{number}.png", b""), (f"__MACOSX/{number}.png", b"")]
    tar(tmp_path / "set" / "all.tar", [("README", b"hi"), *members])
    for name in ("b.TAR", ".hidden", "notes.md", "c.zip"):
        (tmp_path / "set" / name).touch()
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert {entry["what"]: entry["n_files"] for entry in summary(index_path)["left_out"]} == {
        ".txt members": 3,
        ".id members": 3,
        "further pictures of a key (.depth.png)": 3,
        "._ members of macOS": 3,
        "members in service folders": 3,
        "members without a suffix": 1,
        ".tar files": 1,
        ".zip files": 1,
        ".md files": 1,
        "hidden files": 1,
    }
    assert "3 .id members are not read" in said(index_path)
    assert "b.TAR" in said(index_path, "warning")


def test_pictures_of_unlike_kinds_are_warned_of(tmp_path, index_path):
    tar(tmp_path / "set" / "all.tar", [("0.png", png(0)), ("1.png", png(1)), ("2.depth.png", png(2))])
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert "unlike kinds" in said(index_path, "warning")
    assert "2.depth.png" in said(index_path, "warning")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "a-*.tar", "val": "b-*.tar"}, r"splits: val: .*b-\*\.tar: there is no such tar file"),
        ({"train": "a-{0..2}.tar"}, r"splits: train: .*a-2\.tar: there is no such tar file"),
        ({"train": "a-{1..0}.tar"}, "counts down"),
        ({"train": "a-*.tar", "val": "a-1.tar"}, r"a-1\.tar is in train and in val"),
        ({"train": "notes.txt"}, r"notes\.txt: the name of a tar file has to end in \.tar"),
    ],
)
def test_wrong_patterns_are_refused(tmp_path, index_path, splits, message):
    for number in range(2):
        tar(tmp_path / "set" / f"a-{number}.tar", WHOLE)
    (tmp_path / "set" / "notes.txt").write_text("hi")
    with pytest.raises(DataError, match=message):
        build_index(webdataset(tmp_path / "set", splits=splits), index_path)


def test_folders_without_tars_are_refused(tmp_path, index_path):
    with pytest.raises(DataError, match="it has no tar files"):
        build_index(webdataset(tmp_path), index_path)
    with pytest.raises(DataError, match=r"root: .*NOWHERE_SET.* not set"):
        build_index(webdataset(Path("${NOWHERE_SET}")), index_path)


def test_braces_name_lists_and_padded_ranges(tmp_path, index_path):
    for name in ("x-08", "x-09", "x-10", "y-09", "z-09"):
        tar(tmp_path / "set" / f"{name}.tar", [(f"{name}.png", png(0))])
    build_index(
        webdataset(tmp_path / "set", splits={"train": "{x,y}-{09..09}.tar", "val": "x-{08,10}.tar"}), index_path
    )
    frame = read_index(index_path)
    keys = [path.partition("!")[2].partition(".")[0] for path in frame["path"]]
    assert keys == ["x-09", "y-09", "x-08", "x-10"]
