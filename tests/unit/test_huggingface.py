"""Pictures in Parquet files, as `datasets` writes them. `test_dataset_kinds.py` tests what all kinds share."""

import io
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_for_tests import (
    ALL,
    CLASS,
    PICTURE,
    cell,
    encoded,
    hub,
    pictures,
    plain_shard,
    shard,
    values_of,
)
from PIL import Image

from visae.config.settings import HuggingFaceSettings
from visae.data.images import open_image
from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError
from visae.files import read_json


def texts(index_path: Path) -> str:
    return "\n".join(notice["text"] for notice in read_json(index_path.with_name("summary.json"))["notices"])


def test_imagenet_as_it_is_served(root, index_path):
    """Three splits, classes named by the metadata, and a test split whose labels are kept back as -1."""
    names = datasets.ClassLabel(names=["tench, Tinca tinca", "goldfish", "shark", "cock"])
    features = {"image": PICTURE, "label": names}
    for number, labels in enumerate(([2, 0], [0, 2])):
        rows = {"image": pictures(2, 10 * number), "label": labels}
        shard(root / "data" / f"train-{number:05d}-of-00002.parquet", rows, features)
    shard(root / "data/validation-00000-of-00001.parquet", {"image": pictures(1, 30), "label": [2]}, features)
    shard(root / "data/test-00000-of-00001.parquet", {"image": pictures(3, 40), "label": [-1] * 3}, features)
    (root / "README.md").write_text("---\nlicense: other\n---\n")
    build_index(hub(root), index_path)
    frame = read_index(index_path)
    assert frame["split"].to_list() == ["train"] * 4 + ["val"] + ["test"] * 3
    assert frame["label"].to_list() == [2, 0, 0, 2, 2, None, None, None]
    assert read_classes(index_path) == {0: "tench, Tinca tinca", 2: "shark"}
    for number, path in zip((0, 1, 10, 11, 30, 40, 41, 42), frame["path"], strict=True):
        assert f"!image/{number:04d}.png@0:" in path
        np.testing.assert_array_equal(np.asarray(open_image(path)), values_of(number))
    assert "3 pictures of test have no label (-1 or empty), such as row 1 of test-00000-of-00001.parquet" in texts(
        index_path
    )
    assert "left out: 1 .md files" in texts(index_path)


def test_labels_that_lack_in_train_are_refused(root, index_path):
    shard(root / "train.parquet", {"image": pictures(4), "label": [0, 1, None, 1]})
    with pytest.raises(DataError, match=r"row 1 of train\.parquet has a label and row 3 of train\.parquet has none"):
        build_index(hub(root, splits={"train": "train.parquet"}), index_path)
    build_index(hub(root, splits={"train": "train.parquet"}, label="none"), index_path)
    assert read_index(index_path)["label"].null_count() == 4


def test_a_column_of_labels_that_says_nothing_is_refused_by_its_name(root, index_path):
    shard(root / "train.parquet", {"image": pictures(2), "label": [-1, None]})
    with pytest.raises(DataError, match=r"the column label is empty, or -1, in all rows; set label: none"):
        build_index(hub(root, label="label"), index_path)


def test_pictures_of_all_kinds(root, index_path):
    """CMYK, WebP, 16 bits, animations and what the library makes of Pillow's pictures and of arrays."""
    frames = io.BytesIO()
    stills = [Image.fromarray(values_of(number)) for number in (5, 6)]
    stills[0].save(frames, "gif", save_all=True, append_images=stills[1:])
    rows = [
        cell(encoded(0, "jpeg", "CMYK", quality=95)),
        cell(encoded(1, "webp", lossless=True)),
        cell(frames.getvalue(), "moving.gif"),
        Image.fromarray(values_of(3)),
        values_of(4),
        Image.fromarray(values_of(7)[..., 0].astype(np.uint16) * 256),
    ]
    shard(root / "a.parquet", {"image": rows})
    build_index(hub(root, **ALL), index_path)
    frame = read_index(index_path)
    assert frame.select("width", "height").rows() == [(9, 6)] * 6
    for row, number in ((1, 1), (3, 3), (4, 4)):
        np.testing.assert_array_equal(np.asarray(open_image(frame["path"][row])), values_of(number))
    grey = np.asarray(open_image(frame["path"][5]))[..., 0]
    np.testing.assert_allclose(grey, values_of(7)[..., 0], atol=1)  # 16 bits are rounded to 8
    assert [path.rpartition("!")[2].partition("@")[0] for path in frame["path"]] == [
        *("image/row-1", "image/row-2", "image/moving.gif", "image/row-4", "image/row-5", "image/row-6")
    ]


def test_damaged_and_empty_pictures_are_counted_and_listed(root, index_path):
    rows = [*pictures(5), cell(encoded(5)[:100], "cut.png"), None, cell(b"", "empty.png"), cell(b"<html>", "page.png")]
    shard(root / "a.parquet", {"image": rows})
    build_index(hub(root, max_unreadable=0.5, **ALL), index_path)
    assert len(read_index(index_path)) == 5
    skipped = polars.read_csv(index_path.with_name("skipped.csv"))
    names = [path.rpartition("/")[2].partition("@")[0] for path in skipped["path"]]
    assert names == ["cut.png", "row-7", "empty.png", "page.png"]
    for reason, expected in zip(skipped["reason"], ("truncated", "no bytes", "empty", "web server"), strict=True):
        assert expected in reason
    with pytest.raises(DataError, match=r"4 of 9 pictures"):
        build_index(hub(root, **ALL), index_path)


def test_pictures_with_a_path_only_are_refused_and_embedded_as_the_error_says(root, index_path, tmp_path):
    for number in range(3):
        Image.fromarray(values_of(number)).save(tmp_path / f"{number}.png")
    rows = [cell(encoded(9)), *(str(tmp_path / f"{number}.png") for number in range(3))]
    shard(root / "a.parquet", {"image": rows})
    expected = r"a\.parquet: row 2: the column image has a path \(.*/0\.png\) and no bytes: the picture is not in the"
    with pytest.raises(DataError, match=expected):
        build_index(hub(root, **ALL), index_path)
    known = datasets.Features({"image": PICTURE})
    of_paths = datasets.Dataset.from_dict({"image": rows}, features=known).with_format("arrow")
    of_paths.map(datasets.table.embed_table_storage, batched=True).to_parquet(root / "a.parquet")
    build_index(hub(root, **ALL), index_path)
    np.testing.assert_array_equal(np.asarray(open_image(read_index(index_path)["path"][2])), values_of(1))


def test_paths_are_found_as_such_without_statistics_too(root, index_path):
    plain_shard(root / "a.parquet", {"image": [cell(encoded(0)), cell(None, "elsewhere.png")]}, write_statistics=False)
    build_index(hub(root, max_unreadable=0.5, **ALL), index_path)
    (reason,) = polars.read_csv(index_path.with_name("skipped.csv"))["reason"]
    assert "row 2 of" in reason
    assert "has no bytes of a picture" in reason


TWO_LABELS = {"image": PICTURE, "fine": CLASS, "coarse": datasets.ClassLabel(names=["big", "small"])}
SEVERAL = {"image": PICTURE, "tags": datasets.List(CLASS)}
NESTED = {"data": {"shot": PICTURE, "of": {"kind": CLASS}}, "who": datasets.Value("string")}


def test_of_several_columns_of_labels_one_is_named(root, index_path):
    shard(root / "a.parquet", {"image": pictures(2), "fine": [0, 1], "coarse": [1, 0]}, TWO_LABELS)
    with pytest.raises(DataError, match=r"the columns fine, coarse hold labels; name one by label:"):
        build_index(hub(root, **ALL), index_path)
    build_index(hub(root, label="coarse", **ALL), index_path)
    assert read_index(index_path)["label_name"].to_list() == ["small", "big"]


@pytest.mark.parametrize(
    ("features", "columns", "options", "message"),
    [
        (SEVERAL, {"tags": [[0], [1]]}, {}, r"the column tags: it holds several labels a row"),
        (SEVERAL, {"tags": [[0], [1]]}, {"label": "tags"}, r"the column tags: it holds several labels a row"),
        (
            SEVERAL,
            {"tags": [[0], [1]]},
            {"label": "kind"},
            r"label: it has no column kind; its columns are image \(str",
        ),
        (
            SEVERAL,
            {"tags": [[0], [1]]},
            {"image": "tags", "label": "none"},
            r"image: the column tags: it holds several pictures a row",
        ),
        (
            {"image": PICTURE, "score": datasets.Value("float32")},
            {"score": [0.5, 1.5]},
            {"label": "score"},
            r"the column score: it has type float; a picture has one class",
        ),
        (
            {"image": datasets.Value("string")},
            {"image": ["a.png", "https://b"]},
            {"image": "image"},
            r"the column image: it holds paths or addresses",
        ),
        ({"x": datasets.Value("int64")}, {"x": [0, 1]}, {}, r"no column holds pictures, .*Its columns are x \(int64\)"),
        (
            {"image": datasets.List(PICTURE)},
            {"image": [pictures(2), pictures(2)]},
            {"image": "image"},
            r"the column image: it holds several pictures a row",
        ),
        (
            {"image": datasets.Array3D((6, 9, 3), "uint8")},
            {"image": [values_of(0), values_of(1)]},
            {"image": "image"},
            r"the column image: it holds several pictures a row, or numbers",
        ),
        (
            {"image": PICTURE, "other": PICTURE},
            {"other": pictures(2)},
            {},
            r"the columns image, other hold pictures; name that of the pictures by image:",
        ),
    ],
)
def test_columns_that_do_not_serve_are_refused(root, index_path, features, columns, options, message):
    if "image" in features and "image" not in columns:
        columns = {"image": pictures(2), **columns}
    shard(root / "a.parquet", columns, features)
    with pytest.raises(DataError, match=message):
        build_index(hub(root, **ALL, **options), index_path)


NO_LABELS = {
    "double": pyarrow.array([0.0, 1.0]),
    "decimal128": pyarrow.array([Decimal(0), Decimal(1)]),
    "null": pyarrow.nulls(2),
    "binary": pyarrow.array([b"a", b"b"]),
    "timestamp": pyarrow.array([datetime(2020, 1, 1), datetime(2021, 1, 1)]),
    "date32": pyarrow.array([date(2020, 1, 1), date(2021, 1, 1)]),
    "time64": pyarrow.array([time(1), time(2)]),
    "duration": pyarrow.array([timedelta(1), timedelta(2)]),
    "struct": pyarrow.array([{"id": 0, "name": "wren"}, {"id": 1, "name": "crow"}]),
    "map": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
}


@pytest.mark.parametrize("name", ["label", "labels"])
@pytest.mark.parametrize("kind", NO_LABELS)
def test_a_column_of_labels_that_holds_none_is_not_left_out_silently(root, index_path, kind, name):
    struct = pyarrow.struct({"path": pyarrow.string(), "bytes": pyarrow.binary()})
    columns = {"image": pyarrow.array(pictures(2), struct), name: NO_LABELS[kind]}
    plain_shard(root / "a.parquet", columns)
    for options in ({}, {"label": name}):
        with pytest.raises(DataError, match=rf"the column {name}: it has type {kind}.*or set label: none"):
            build_index(hub(root, **ALL, **options), index_path)
    build_index(hub(root, label="none", **ALL), index_path)
    assert read_index(index_path)["label"].null_count() == 2


def test_a_class_label_of_another_name_is_meant_beside_a_column_that_holds_no_labels(root, index_path):
    columns = {"image": pictures(2), "species": [1, 0], "label": [0.5, 1.5]}
    shard(root / "a.parquet", columns, {"image": PICTURE, "species": CLASS, "label": datasets.Value("float32")})
    build_index(hub(root, **ALL), index_path)
    assert read_index(index_path)["label_name"].to_list() == ["crow", "wren"]


def test_truths_and_pictures_are_told_from_columns_that_hold_no_labels(root, index_path):
    struct = pyarrow.struct({"path": pyarrow.string(), "bytes": pyarrow.binary()})
    plain_shard(root / "a.parquet", {"label": pyarrow.array(pictures(2), struct), "labels": [True, False]})
    build_index(hub(root, **ALL), index_path)
    assert read_index(index_path)["label_name"].to_list() == ["True", "False"]
    plain_shard(root / "a.parquet", {"label": pyarrow.array(pictures(2), struct)})
    build_index(hub(root, **ALL), index_path)
    assert read_index(index_path)["label"].null_count() == 2


def test_lists_of_labels_hinder_nobody_who_reads_none(root, index_path):
    shard(root / "a.parquet", {"image": pictures(2), "tags": [[0], [0, 1]]}, SEVERAL)
    build_index(hub(root, label="none", **ALL), index_path)
    assert len(read_index(index_path)) == 2


@pytest.mark.parametrize("options", [{}, {"image": "data.shot", "label": "data.of.kind"}])
def test_columns_within_structs(root, index_path, options):
    rows = [{"shot": picture, "of": {"kind": number % 2}} for number, picture in enumerate(pictures(3))]
    shard(root / "a.parquet", {"data": rows, "who": ["x", None, "y"]}, NESTED)
    build_index(hub(root, **ALL, **options), index_path)
    frame = read_index(index_path)
    assert frame["label_name"].to_list() == ["wren", "crow", "wren"]
    np.testing.assert_array_equal(np.asarray(open_image(frame["path"][1])), values_of(1))


def test_sounds_are_no_pictures(root, index_path):
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    metadata = {"info": {"features": {"sound": {"_type": "Audio"}, "image": {"_type": "Image"}}}}
    table = pyarrow.table(
        {name: pyarrow.array(pictures(2), kind) for name in ("sound", "image")},
    ).replace_schema_metadata({"huggingface": json.dumps(metadata)})
    root.mkdir()
    pyarrow.parquet.write_table(table, root / "a.parquet")
    build_index(hub(root, **ALL), index_path)
    assert len(read_index(index_path)) == 2


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary_view()], ids=str)
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_types_and_compressions(root, index_path, kind, compression):
    struct = pyarrow.struct({"path": pyarrow.large_string(), "bytes": kind})
    size = 7 if kind == pyarrow.binary_view() else 3  # pyarrow writes no part of a view
    columns = {"image": pyarrow.array(pictures(7), struct), "label": pyarrow.array([*"aabbabb"]).dictionary_encode()}
    plain_shard(root / "a.parquet", columns, compression=compression, row_group_size=size)
    build_index(hub(root, **ALL), index_path)
    frame = read_index(index_path)
    assert frame["label_name"].to_list() == [*"aabbabb"]
    for number, path in enumerate(frame["path"]):
        np.testing.assert_array_equal(np.asarray(open_image(path)), values_of(number))


@pytest.mark.parametrize("as_dictionary", [True, False])
def test_a_column_of_bytes_alone_is_named(root, index_path, as_dictionary):
    """Dictionaries: one picture in many rows is stored once."""
    content = pyarrow.array([encoded(number % 2) for number in range(6)])
    plain_shard(
        root / "a.parquet",
        {"jpg": content.dictionary_encode() if as_dictionary else content, "cls": [0, 1] * 3},
        row_group_size=4,
    )
    build_index(hub(root, image="jpg", label="cls", **ALL), index_path)
    frame = read_index(index_path)
    assert frame["label_name"].to_list() == ["0", "1"] * 3
    for number, path in enumerate(frame["path"]):
        np.testing.assert_array_equal(np.asarray(open_image(path)), values_of(number % 2))


MASKED = {"image": PICTURE, "annotation": PICTURE, "scene": datasets.ClassLabel(names=["street", "field"])}


def mask(number: int, kind: str = "png") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 9), number, dtype=np.uint8)).save(buffer, kind)
    return cell(buffer.getvalue())


def masked(root: Path, masks: list, **options: Any) -> HuggingFaceSettings:
    """ADE20K as it is served: scenes are no classes of its masks, whose names lie nowhere."""
    rows = {"image": pictures(3), "annotation": masks, "scene": [0, 1, 0]}
    shard(root / "data/train-00000-of-00001.parquet", rows, MASKED)
    (root / "classes.txt").write_text("1\twall\n2\tsky\n")
    return hub(root, mask="annotation", classes=str(root / "classes.txt"), **options)


def test_ade20k_as_it_is_served(root, index_path):
    settings = masked(root, [mask(1), mask(2), None])
    assert settings.has_masks
    assert not settings.may_have_labels
    build_index(settings, index_path)
    frame = read_index(index_path)
    assert [path is None for path in frame["mask_path"]] == [False, False, True]
    assert "!annotation/0001.png@2:1" in frame["mask_path"][1]
    assert frame["label"].null_count() == 3
    assert read_classes(index_path) == {1: "wall", 2: "sky"}


def test_masks_that_may_have_lost_ids_are_refused(root, index_path):
    with pytest.raises(DataError, match=r"annotation/0001\.png@2:1: .*JPEG"):
        build_index(masked(root, [mask(1), mask(2, "jpeg"), mask(1)]), index_path)


def test_masks_and_the_list_of_their_classes_belong_together(root, index_path):
    settings = masked(root, [mask(1)] * 3)
    with pytest.raises(DataError, match=r"mask and classes: .*set both"):
        build_index(hub(root, mask="annotation"), index_path)
    with pytest.raises(DataError, match=r"the columns image, annotation hold pictures"):
        build_index(hub(root), index_path)
    with pytest.raises(DataError, match=r"the label street .* is none of the classes of masks"):
        build_index(masked(root, [mask(1)] * 3, label="scene"), index_path)
    rows = {"image": pictures(2), "annotation": [mask(1), cell(None, "x.png")]}
    plain_shard(root / "data/train-00000-of-00001.parquet", rows)
    with pytest.raises(DataError, match=r"the column annotation has a path \(x\.png\) and no bytes"):
        build_index(settings, index_path)
