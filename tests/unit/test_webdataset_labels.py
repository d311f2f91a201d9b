"""Labels of pictures within tars: where they stand, and what is taken, said or refused."""

import json
import re

import pytest
from indexed_for_tests import said, summary
from webdatasets_for_tests import ALL, WHOLE, pairs, png, tar, webdataset

from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError


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


@pytest.mark.parametrize("name", ["{}.id", "{}.index", "{}.txt", "{}.pyd", "{}.msgpack", "labels.csv"])
def test_members_that_may_be_labels_are_warned_of_where_there_are_none(tmp_path, index_path, name):
    members = dict(pairs(("{}.png", name)))
    tar(tmp_path / "set" / "all.tar", sorted(members.items()))
    build_index(webdataset(tmp_path / "set", **ALL), index_path)
    suffix = name.rpartition(".")[2]
    assert re.search(rf"\d \.{suffix} members are not read, such as .*all\.tar!", said(index_path, "warning"))
    assert read_index(index_path)["label"].null_count() == 6


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
