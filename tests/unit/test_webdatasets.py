"""Pictures within tars: keys, splits, and what is refused. `test_dataset_kinds.py` tests what all kinds share."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visae.config.settings import WebDatasetSettings
from visae.data.images import open_image, read_mask
from visae.data.index import build_index, read_classes, read_index
from visae.data.locators import content_sha256, locator, opened
from visae.errors import DataError


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(number).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def webdataset(root: Path, **options) -> WebDatasetSettings:
    return WebDatasetSettings(kind="webdataset", root=str(root), **options)


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "birds" / "index.parquet"


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


@pytest.mark.parametrize(
    ("labels", "ids", "classes"),
    [
        ([b"3", b"1\n", b"3"], [3, 1, 3], {1: "1", 3: "3"}),
        ([b"wren", b"crow", b"wren"], [1, 0, 1], {0: "crow", 1: "wren"}),
        ([b"3", b"crow", b"3"], [0, 1, 0], {0: "3", 1: "crow"}),
    ],
)
def test_labels_are_numbers_where_all_are(tmp_path, index_path, labels, ids, classes):
    members = [
        (f"{number}.{kind}", content)
        for number, label in enumerate(labels)
        for kind, content in (("cls", label), ("png", png(number)))
    ]
    tar(tmp_path / "set" / "all.tar", members)
    build_index(webdataset(tmp_path / "set", val_share=0.0, test_share=0.0), index_path)
    assert read_index(index_path)["label"].to_list() == ids
    assert read_classes(index_path) == classes


def test_what_is_no_picture_is_left_out(tmp_path, index_path):
    members = [("._0.png", b""), ("0.depth.png", png(9)), ("0.png", png(0)), ("0.txt", b"hello"), ("meta.json", b"{}")]
    tar(tmp_path / "set" / "all.tar", [("README", b"hi"), *members])
    build_index(webdataset(tmp_path / "set", val_share=0.0, test_share=0.0), index_path)
    assert ["!0.png@" in path for path in read_index(index_path)["path"]] == [True]


WHOLE = [("0.png", png(0)), ("1.png", png(1))]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*WHOLE, ("0.cls", b"1")], r"all\.tar: the key 0 comes twice"),
        ([*WHOLE, WHOLE[1]], r"all\.tar: 1\.png comes twice"),
        ([("0.png", png(0)), ("0.jpg", png(0))], r"the key 0 has 2 pictures: 0\.png and 0\.jpg; .*first dot.*leave one"),
        ([("0.mask.png", png(0)), ("0.seg.png", png(0))], r"the key 0 has 2 masks: 0\.mask\.png and 0\.seg\.png; .*leave one"),
        ([*WHOLE, ("2.mask.png", png(0))], "the key 2 has a mask and no picture"),
        ([*WHOLE, ("1.cls", b"3")], r"1 of all\.tar has a label and 0 of all\.tar has none"),
        ([*WHOLE, ("1.cls", b"\xff")], r"1\.cls: it is no UTF-8 text"),
        ([*WHOLE, ("1.json", b"{")], r"1\.json: it is no JSON"),
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


def test_links_are_refused(tmp_path, index_path):
    with tarfile.open(tar(tmp_path / "set" / "all.tar", WHOLE), "a") as archive:
        member = tarfile.TarInfo("2.png")
        member.type, member.linkname = tarfile.SYMTYPE, "0.png"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"all\.tar: 2\.png is a link"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("left", [300, 512, 600, 1024, 1400, 1536, 2048])
def test_truncated_tars_are_named_wherever_they_end(tmp_path, index_path, left):
    """Headers and padded pictures are blocks of 512 bytes: within each, and at each border but the true end."""
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    assert path.read_bytes()[2048:2560] == bytes(512)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match=r"all\.tar: it is cut off or damaged"):
        build_index(webdataset(tmp_path / "set"), index_path)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, index_path):
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    content = bytearray(path.read_bytes())
    content[1024 + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"all\.tar: it is cut off or damaged"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("name", ["all.tar.gz", "all.tgz", "all.tar"])
def test_compressed_tars_are_refused_with_what_to_do(tmp_path, index_path, name):
    content = tar(tmp_path / "set" / "x.tar", WHOLE).read_bytes()
    (tmp_path / "set" / name).write_bytes(gzip.compress(content))
    for splits in ({}, {"train": "x.tar", "val": name}):
        with pytest.raises(DataError, match=rf"{name} is compressed.*`gunzip`"):
            build_index(webdataset(tmp_path / "set", splits=splits), index_path)


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


def test_a_files_own_name_comes_before_a_place_in_a_tar(tmp_path):
    odd = tmp_path / "a.tar!b.png@0:4"
    odd.write_bytes(png(1))
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    assert opened(odd).read() == png(1)
    assert opened(locator(str(tmp_path / "a.tar"), "b.png", 2, 4)).read() == b"2345"
    assert content_sha256(odd) != content_sha256(f"{tmp_path}/a.tar!b.png@0:5")


def test_names_with_the_signs_of_locators(tmp_path, index_path):
    root = tmp_path / "old.tar!set@1:2"
    tar(root / "a!b.tar", [("c.tar!d/e@f.png", png(3)), ("e!.jpg@0:9.png", png(4))])
    build_index(webdataset(root, val_share=0.0, test_share=0.0), index_path)
    paths = read_index(index_path)["path"]
    assert [content_sha256(path) for path in paths] == read_index(index_path)["sha256"].to_list()
    for number, path in zip((3, 4), paths, strict=True):
        assert opened(path).read() == png(number)


@pytest.mark.parametrize(
    "name", ["gone.tar!a.png@0:5", "a.tar!a.png", "a.tar!a.png@5", "a.tar!a.png@-1:5", "b.png@1:5"]
)
def test_what_names_nothing_is_missing(tmp_path, name):
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / name)
    with pytest.raises(DataError, match=r"the mask is missing"):
        read_mask(tmp_path / name, (1, 1))


def test_a_tar_that_became_shorter_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"0123456789")
    with pytest.raises(OSError, match=r"a\.tar ends before byte 13"):
        opened(tmp_path / "a.tar!b.png@8:5")
