"""Pictures within tars: keys, splits, and what is refused. `test_dataset_kinds.py` tests what all kinds share."""

import gzip
import io
import json
import re
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
from visae.files import read_json


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


def summary(index_path: Path) -> dict:
    return read_json(index_path.with_name("summary.json"))


def said(index_path: Path, level: str = "") -> str:
    """All notices, or those of a level, as one text."""
    return "\n".join(entry["text"] for entry in summary(index_path)["notices"] if entry["level"].startswith(level))


def pairs(names: tuple[str, str], n: int = 6) -> list[tuple[str, bytes]]:
    """Members of n keys: a picture, and what says its class, 0 or 1."""
    contents = [(png(number), str(number % 2).encode()) for number in range(n)]
    return [
        (name.format(number), both[place]) for number, both in enumerate(contents) for place, name in enumerate(names)
    ]


ALL = {"val_share": 0.0, "test_share": 0.0}


@pytest.mark.parametrize(
    ("names", "level", "text"),
    [
        (("photo_{}.v2.png", "photo_{}.v2.cls"), "note", "6 pictures have more dots in their name"),
        (("{}.input.png", "{}.output.cls"), "warning", "6 labels stand under another prefix than their picture"),
        (("{}.png", "{}.output.cls"), "warning", "6 labels stand under another prefix than their picture"),
        (("{}.input.png", "{}.cls"), "note", "6 pictures have more dots in their name"),
        (("2024-05-01 1{}.05.png", "2024-05-01 1{}.05.cls"), "note", "a key ends at the first dot"),
        (("v1.0/{}.png", "v1.0/{}.cls"), "", ""),
        (("./{}.png", "{}.cls"), "", ""),
        (("a/./{}.png", "a/{}.CLS"), "", ""),
    ],
)
def test_labels_under_another_prefix_are_taken_and_said(tmp_path, index_path, names, level, text):
    tar(tmp_path / "set" / "all.tar", pairs(names))
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert read_index(index_path)["label"].to_list() == [0, 1] * 3
    assert text in said(index_path, level)
    assert len(said(index_path, "warning").splitlines()) == (level == "warning")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("images/{}.png", "labels/{}.cls"), r"such as .*images/0\.png, but 6 labels belong to keys .*labels/0\.cls"),
        (("{}.png", "{}_label.cls"), r"6 labels belong to keys without a picture, such as .*0_label\.cls"),
        (("{}.png", "{}.class"), r"6 members that are not read may be labels, such as .*0\.class"),
        (("{}.png", "{}.label.txt"), r"6 members that are not read may be labels, such as .*0\.label\.txt"),
        (("{}.png", "{}.target"), r"6 members that are not read may be labels, such as .*0\.target"),
        (("{}.png", "{}.label.png"), r"6 members that are not read may be labels, such as .*0\.label\.png"),
    ],
)
def test_labels_that_would_be_dropped_stop_the_index(tmp_path, index_path, names, message):
    tar(tmp_path / "set" / "all.tar", pairs(names))
    with pytest.raises(DataError, match=rf"no picture has a label.*{message}.*labels: none"):
        build_index(webdataset(tmp_path / "set"), index_path)
    build_index(webdataset(tmp_path / "set", labels="none", **ALL), index_path)
    assert read_index(index_path)["label"].null_count() == 6
    assert summary(index_path)["left_out"][0]["n_files"] == 6


def test_labels_of_keys_without_pictures_are_counted(tmp_path, index_path):
    extra = [("9.heic", b"x"), ("9.cls", b"1"), ("8.json", b'{"label": 3}'), ("7.json", b"no JSON")]
    tar(tmp_path / "set" / "all.tar", pairs(("{}.png", "{}.cls")) + extra)
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert "2 labels belong to keys that have no picture, such as" in said(index_path, "warning")
    assert "1 .heic members" in said(index_path, "warning")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("0.v1.png", "0.v2.png"), r"the key 0 has 2 pictures: 0\.v1\.png and 0\.v2\.png; a key ends at the first dot"),
        (
            ("12.00.png", "12.01.png", "12.02.png"),
            r"the key 12 has 3 pictures: 12\.00\.png .*rename them so that no dot",
        ),
        (("0.input.png", "0.target.jpg"), r"the key 0 has 2 pictures: 0\.input\.png and 0\.target\.jpg"),
        (("0.png", "0.a.cls", "0.b.cls"), r"the key 0 has 2 labels: 0\.a\.cls and 0\.b\.cls; .*call one 0\.cls"),
    ],
)
def test_keys_that_are_several_things_name_them(tmp_path, index_path, names, message):
    members = [(name, b"1" if name.endswith("cls") else png(number)) for number, name in enumerate(names)]
    tar(tmp_path / "set" / "all.tar", members)
    with pytest.raises(DataError, match=message):
        build_index(webdataset(tmp_path / "set"), index_path)


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


@pytest.mark.parametrize("name", ["{}.id", "{}.index", "{}.txt", "labels.csv"])
def test_members_that_may_be_labels_are_warned_of_where_there_are_none(tmp_path, index_path, name):
    members = dict(pairs(("{}.png", name)))
    tar(tmp_path / "set" / "all.tar", sorted(members.items()))
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    suffix = name.rpartition(".")[2]
    assert re.search(rf"\d \.{suffix} members are not read, such as .*all\.tar!", said(index_path, "warning"))
    assert read_index(index_path)["label"].null_count() == 6


def test_pictures_of_unlike_kinds_are_warned_of(tmp_path, index_path):
    tar(tmp_path / "set" / "all.tar", [("0.png", png(0)), ("1.png", png(1)), ("2.depth.png", png(2))])
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert "unlike kinds" in said(index_path, "warning")
    assert "2.depth.png" in said(index_path, "warning")


def in_json(*values: object) -> list[tuple[str, bytes]]:
    return [
        member
        for number, value in enumerate(values)
        for member in ((f"{number}.png", png(number)), (f"{number}.json", json.dumps(value).encode()))
    ]


@pytest.mark.parametrize(
    ("labels", "ids"),
    [
        ([3, 1.0, 3.0], [3, 1, 3]),
        (["3", "1.0", 3], [3, 1, 3]),
        ([" crow ", "wren", "crow"], [0, 1, 0]),
    ],
)
def test_labels_of_json_are_read_as_they_are_meant(tmp_path, index_path, labels, ids):
    tar(tmp_path / "set" / "all.tar", in_json(*({"label": label} for label in labels)))
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert read_index(index_path)["label"].to_list() == ids


@pytest.mark.parametrize("value", [None, True, [1], {"a": 1}, 2.5, float("nan"), float("inf"), "", "NaN", "NA"])
def test_labels_of_json_that_are_none_are_refused_by_name(tmp_path, index_path, value):
    tar(tmp_path / "set" / "all.tar", in_json({"label": 1}, {"label": value}))
    shown = re.escape(json.dumps(value))
    with pytest.raises(DataError, match=rf"all\.tar: 1\.json: label is {shown}; make it an integer or a text"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("key", ["class", "cls", "category", "Label", "class_name", "target", "meta.label"])
def test_keys_of_json_that_may_be_labels_are_said(tmp_path, index_path, key):
    *outer, inner = key.split(".")
    values = [{inner: number, "caption": "x"} for number in (1, 2)]
    members = in_json(*({outer[0]: value} if outer else value for value in values), [1])
    tar(tmp_path / "set" / "all.tar", members)
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    texts = said(index_path, "warning")
    assert f"2 members have the key '{key}' and no label, such as {tmp_path}/set/all.tar!0.json" in texts
    assert "1 .json members are no objects" in texts


@pytest.mark.parametrize(
    ("content", "shown"),
    [(b"", "empty"), (b" \n", "empty"), (b"nan", "'nan'"), (b"3\n4", r"'3\\n4'"), (b"\x03\0\0\0", r"'\\x03")],
)
def test_members_that_are_no_labels_are_named(tmp_path, index_path, content, shown):
    tar(tmp_path / "set" / "all.tar", [*WHOLE, ("1.cls", content)])
    with pytest.raises(DataError, match=rf"all\.tar: 1\.cls: it is {shown}"):
        build_index(webdataset(tmp_path / "set"), index_path)


def test_two_labels_of_a_key_have_to_agree(tmp_path, index_path):
    both = [("0.png", png(0)), ("0.cls", b"1"), ("0.json", b'{"label": 1.0, "label_name": "wren"}')]
    tar(tmp_path / "set" / "all.tar", both)
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert read_classes(index_path) == {1: "wren"}
    tar(tmp_path / "set" / "all.tar", [*both[:2], ("0.json", b'{"label": 2}')])
    with pytest.raises(DataError, match=r"the key 0 has the label 1 in 0\.cls and 2 in 0\.json; leave one"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("between", [b"", bytes(512), bytes(10240)])
def test_tars_that_were_joined_are_refused(tmp_path, index_path, between):
    parts = [tar(tmp_path / f"{n}.tar", [(f"{n}.png", png(n)), (f"{n}.cls", b"1")]).read_bytes() for n in range(3)]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "all.tar").write_bytes(between.join(parts))
    with pytest.raises(DataError, match=r"all\.tar: it goes on after its end, from byte \d+.*--concatenate"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize(("after", "whole"), [(bytes(1 << 21), True), (bytes(1 << 21) + b"x", False), (b"x", False)])
def test_a_tar_may_end_in_any_number_of_zeros_and_nothing_else(tmp_path, index_path, after, whole):
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    path.write_bytes(path.read_bytes() + after)
    if whole:
        build_index(webdataset(tmp_path / "set", **ALL), index_path)
        assert len(read_index(index_path)) == 2
    else:
        with pytest.raises(DataError, match=r"all\.tar: it goes on after its end, from byte"):
            build_index(webdataset(tmp_path / "set"), index_path)


def test_a_lone_block_of_zeros_between_members_is_refused(tmp_path, index_path):
    """What GNU tar reads over with a warning would end the tar here."""
    path = tar(tmp_path / "set" / "all.tar", WHOLE)
    content = path.read_bytes()
    path.write_bytes(content[:1024] + bytes(512) + content[1024:])
    with pytest.raises(DataError, match=r"all\.tar: it goes on after its end, from byte 1536"):
        build_index(webdataset(tmp_path / "set"), index_path)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_all_formats_are_read(tmp_path, index_path, form):
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "all.tar", "w", format=form, pax_headers={"comment": "mine"}) as archive:
        for name, content in pairs(("n" * 130 + "/é{}.png", "n" * 130 + "/é{}.cls")):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1.5
            archive.addfile(member, io.BytesIO(content))
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    assert read_index(index_path)["label"].to_list() == [0, 1] * 3
    assert not said(index_path, "warning")


def test_labels_of_splits_have_to_fit(tmp_path, index_path):
    tar(tmp_path / "set" / "a.tar", pairs(("{}.png", "{}.cls")))
    tar(tmp_path / "set" / "b.tar", [("9.png", png(9)), ("9.cls", b"7")])
    with pytest.raises(DataError, match="val has classes that train does not have: '7'"):
        build_index(webdataset(tmp_path / "set", splits={"train": "a.tar", "val": "b.tar"}), index_path)
    with pytest.raises(DataError, match="the split 'valid' looks like val"):
        build_index(webdataset(tmp_path / "set", splits={"train": "a.tar", "valid": "b.tar"}), index_path)
    build_index(webdataset(tmp_path / "set", splits={"train": "a.tar"}), index_path)
    assert "no picture is in val" in said(index_path, "note")
    assert "1 .tar files" in said(index_path, "warning")
    tar(
        tmp_path / "set" / "c.tar",
        [(name, b"1" if name.endswith("cls") else content) for name, content in pairs(("{}.png", "{}.cls"))],
    )
    with pytest.raises(DataError, match=r"all pictures are of one class, 1; .*set labels: none"):
        build_index(webdataset(tmp_path / "set", splits={"train": "c.tar"}), index_path)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE])
def test_members_of_other_types_are_refused(tmp_path, index_path, kind):
    with tarfile.open(tar(tmp_path / "set" / "all.tar", WHOLE), "a") as archive:
        member = tarfile.TarInfo("2.png")
        member.type, member.linkname = kind, "0.png"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"all\.tar: 2\.png is a link or has holes; write the tar with real files"):
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
