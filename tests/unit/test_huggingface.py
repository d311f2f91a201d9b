"""Pictures in Parquet files, as `datasets` writes them. `test_dataset_kinds.py` tests what all kinds share."""

import io
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
from PIL import Image

from visae.config.settings import HuggingFaceSettings
from visae.data import parquet_cells
from visae.data.images import open_image
from visae.data.index import build_index, read_classes, read_index
from visae.data.locators import content_sha256, file_identity, opened
from visae.errors import DataError
from visae.files import read_json

PICTURE, CLASS = datasets.Image(), datasets.ClassLabel(names=["wren", "crow"])
PLAIN = {"image": PICTURE, "label": CLASS}
ALL = {"val_share": 0.0, "test_share": 0.0}


def values_of(number: int, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)


def encoded(number: int, kind: str = "png", mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values_of(number)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def cell(content: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": content, "path": path}


def pictures(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [cell(encoded(number), f"{number:04d}.png") for number in range(first, first + count)]


def shard(path: Path, columns: dict[str, list], features: dict[str, Any] | None = None, **options: Any) -> Path:
    """A file as the hub's own library writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = datasets.Features(features or {name: PLAIN[name] for name in columns})
    datasets.Dataset.from_dict(columns, features=known).to_parquet(path, **options)
    return path


def plain_shard(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A file as another program writes it, without features."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def hub(root: Path, **options: Any) -> HuggingFaceSettings:
    return HuggingFaceSettings(kind="huggingface", root=str(root), **options)


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "birds" / "index.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "set"


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


def names_only(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        shard(root / name, {"image": pictures(2, 10 * number)})


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], {"train": 2, "test": 2}),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet"],
         {"train": 4, "val": 2}),
        (["birds-train-00000-of-00001.parquet", "birds-validation-00000-of-00001.parquet"], {"train": 2, "val": 2}),
        (["train-00000-of-00001-0a1b2c.parquet", "dev-00000-of-00001-ff.parquet"], {"train": 2, "val": 2}),
        (["train.parquet", "eval.parquet"], {"train": 2, "test": 2}),
        (["x/train2017.parquet", "x/val2017.parquet"], {"train": 2, "val": 2}),
        (["data/train_full-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"],
         {"train": 2, "train_full": 2}),
    ],
)  # fmt: skip
def test_names_tell_splits_as_the_hub_reads_them(root, index_path, names, splits):
    names_only(root, *names)
    build_index(hub(root), index_path)
    assert read_json(index_path.with_name("summary.json"))["n_images"] == splits


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"], r"several data sets or configurations"),
        (["a-train-00000-of-00001.parquet", "b-train-00000-of-00001.parquet"], r"several data sets or configurations"),
        (["train-00000-of-00001.parquet", "train_full-00000-of-00001.parquet"], r"several data sets or configurations"),
        (["train.parquet", "more.parquet"], r"the name of .*more\.parquet tells no split, that of .*train\.parquet"),
        (["train-val.parquet"], r"its name tells train and val; set splits"),
        (["data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"],
         r"of 3 shards 1 are missing: train-00001-of-00003\.parquet; download them"),
        (["train-00000-of-00002.parquet", "train-00000-of-00003.parquet"], r"are of two versions of one split"),
        (["train-00000-of-00001-ab.parquet", "train-00000-of-00001-cd.parquet"], r"are one shard; leave one"),
        (["train/0000.parquet", "train/0003.parquet"], r"of 4 shards 2 are missing: 0001\.parquet, 0002\.parquet"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_together_are_refused(root, index_path, names, message):
    names_only(root, *names)
    with pytest.raises(DataError, match=message):
        build_index(hub(root), index_path)


def test_patterns_choose_configurations_folders_and_shards(root, index_path):
    names_only(root, "a/train-00000-of-00003.parquet", "a/train-00001-of-00003.parquet", "b/train/x.parquet")
    build_index(hub(root, splits={"train": "a/train-0000[01]-of-*.parquet", "val": "b/train"}), index_path)
    assert read_json(index_path.with_name("summary.json"))["n_images"] == {"train": 4, "val": 2}
    with pytest.raises(DataError, match=r"splits: train: .*: of 3 shards 1 are missing: train-00002-of-00003\.parquet"):
        build_index(hub(root, splits={"train": "a/train-*.parquet"}), index_path)
    with pytest.raises(DataError, match=r"splits: val: .*there is no such Parquet file"):
        build_index(hub(root, splits={"train": "b/train", "val": "c/*.parquet"}), index_path)
    with pytest.raises(DataError, match=r"x\.parquet is in train and in val"):
        build_index(hub(root, splits={"train": "b/train", "val": "b/**/*.parquet"}), index_path)
    with pytest.raises(DataError, match=r"the split 'validation' looks like val"):
        build_index(hub(root, splits={"train": "b/train", "validation": "a"}), index_path)


def test_drawn_splits_stay_when_a_shard_is_added(root, index_path):
    def drawn() -> dict[str, str]:
        build_index(hub(root, val_share=0.4, check="size"), index_path)
        return {
            path.rpartition("/")[2].partition("@")[0]: split
            for path, split in read_index(index_path)["path", "split"].iter_rows()
        }

    shard(root / "birds-00000-of-00001.parquet", {"image": pictures(100)}, {"image": PICTURE})
    before = drawn()
    assert 20 < [*before.values()].count("val") < 60
    (root / "birds-00000-of-00001.parquet").rename(root / "birds-00000-of-00002.parquet")
    shard(root / "birds-00001-of-00002.parquet", {"image": pictures(20, 100)})
    after = drawn()
    assert len(after) == 120
    assert {name: after[name] for name in before} == before


def test_a_cache_of_the_hub_is_read_through_its_links(root, index_path, tmp_path):
    blob = shard(tmp_path / "blobs" / "0123abc", {"image": pictures(2)})
    (root / "data").mkdir(parents=True)
    (root / "data/train-00000-of-00001.parquet").symlink_to(blob)
    (root / ".cache").mkdir()
    build_index(hub(root), index_path)
    assert len(read_index(index_path)) == 2
    (root / "data/train-00000-of-00001.parquet").unlink()
    (root / "data/train-00000-of-00001.parquet").symlink_to(tmp_path / "blobs" / "gone")
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet is no file"):
        build_index(hub(root), index_path)


def cut_off(content: bytes) -> bytes:
    return content[:-10]


def damaged(content: bytes) -> bytes:
    return content[:4] + bytes(len(content) - 4 - 400) + content[-400:]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_off, r"it is cut off"),
        (lambda content: b"", r"no Parquet file but empty; copy it again"),
        (lambda content: b"PAR1", r"it is cut off"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\n", r"a pointer of Git LFS; run git lfs pull"),
        (lambda content: b"<!DOCTYPE html><html>", r"a page or message of a web server"),
        (lambda content: content[:-9] + b"\xff" + content[-8:], r"a\.parquet: it is damaged"),
        (lambda content: b"PARE" + content[4:], r"it is encrypted"),
    ],
)
def test_files_that_are_not_whole_are_named(root, index_path, harm, message):
    path = shard(root / "a.parquet", {"image": pictures(3), "label": [0, 1, 0]})
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        build_index(hub(root, **ALL), index_path)
    assert not index_path.exists()


def test_other_files_than_parquet_are_named(root, index_path, tmp_path):
    root.mkdir()
    with pytest.raises(DataError, match=r"root: .*it has no Parquet files"):
        build_index(hub(root), index_path)
    datasets.Dataset.from_dict({"image": pictures(2)}).save_to_disk(root / "train")
    with pytest.raises(DataError, match=r"\.arrow was written by save_to_disk: load it with datasets\.load_from_disk"):
        build_index(hub(root), index_path)
    path = shard(tmp_path / "one" / "a.parquet", {"image": pictures(2)})
    with pytest.raises(DataError, match=r"a\.parquet is a file; set root to its folder, and splits to"):
        build_index(hub(path), index_path)
    (root / "a.PARQUET").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"the name of a Parquet file has to end in \.parquet"):
        build_index(hub(root, splits={"train": "a.PARQUET"}), index_path)


def test_classes_have_to_be_named_alike_in_all_files(root, index_path):
    shard(root / "train.parquet", {"image": pictures(2), "label": [0, 1]})
    other = {"image": PICTURE, "label": datasets.ClassLabel(names=["crow", "wren"])}
    shard(root / "val.parquet", {"image": pictures(2, 5), "label": [0, 1]}, other)
    with pytest.raises(
        DataError, match=r"val\.parquet: the column label: its classes are not those of .*0 is 'wren' there"
    ):
        build_index(hub(root), index_path)
    plain_shard(root / "val.parquet", {"image": pictures(2, 5), "label": ["a", "b"]})
    with pytest.raises(DataError, match=r"val\.parquet: the column label: integers here are texts"):
        build_index(hub(root), index_path)
    plain_shard(root / "val.parquet", {"image": pictures(2, 5)})
    with pytest.raises(DataError, match=r"val\.parquet: it has no column of labels, but .*train\.parquet has"):
        build_index(hub(root), index_path)


def test_features_that_do_not_fit_are_named(root, index_path):
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(pictures(2), kind), "label": pyarrow.array([0, 7])})
    names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    root.mkdir()
    for metadata, message in (
        (json.dumps({"info": {"features": names}}), r"row 2: label is 7, but the file names 2 classes, 0 to 1"),
        ("{", r"its metadata under the key huggingface is damaged"),
        ('{"info": 3}', r"its metadata under the key huggingface is damaged"),
    ):
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), root / "a.parquet")
        with pytest.raises(DataError, match=message):
            build_index(hub(root, **ALL), index_path)


def test_one_row_a_group_and_a_row_group_of_many(root, index_path, monkeypatch):
    """Windows of a few rows; both ways to lie give the same pictures in any order."""
    monkeypatch.setattr(parquet_cells, "_WINDOW_BYTES", 1000)
    monkeypatch.setattr(parquet_cells, "_HELD_BYTES", 3000)
    for name, size in (("single", 1), ("whole", 1000)):
        plain_shard(root / name / "a.parquet", {"image": pictures(40)}, row_group_size=size)
    order = np.random.default_rng(0).permutation(40)
    for name in ("single", "whole"):
        build_index(hub(root / name, **ALL), index_path)
        paths = read_index(index_path)["path"]
        for number in order:
            assert content_sha256(paths[int(number)]) == content_sha256_of(encoded(int(number)))


def content_sha256_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_threads_and_forked_processes_read_side_by_side(root, index_path):
    plain_shard(root / "a.parquet", {"image": pictures(300)}, row_group_size=70)
    build_index(hub(root, **ALL), index_path)
    paths = read_index(index_path)["path"].to_list()
    expected = [content_sha256_of(encoded(number)) for number in range(300)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(content_sha256, paths)) == expected
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(content_sha256, paths) == expected


def test_a_file_that_changed_after_it_was_indexed_is_named(root, index_path):
    path = shard(root / "a.parquet", {"image": pictures(5)})
    build_index(hub(root, **ALL), index_path)
    last = read_index(index_path)["path"][4]
    assert file_identity(last) != file_identity(read_index(index_path)["path"][3])
    shard(path, {"image": pictures(2)})
    with pytest.raises(OSError, match=r"has no row 5 in that column; it was changed after it was indexed"):
        opened(last)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        opened(last)


def test_names_with_the_signs_of_locators(root, index_path):
    names = ["a@0:7", "x.tar!y@1:2", "/home/somebody/secret/b.png", "C:\\me\\c.png", "line\nbreak.png", "é ü.png"]
    rows = [cell(encoded(number), name) for number, name in enumerate(names)]
    shard(root / "my.parquet!x.tar" / "a.parquet", {"image": rows})
    build_index(hub(root, **ALL), index_path)
    paths = read_index(index_path)["path"]
    shown = [path.rpartition("a.parquet!image/")[2].rpartition("@")[0] for path in paths]
    assert shown == ["a@0:7", "x.tar!y@1:2", "b.png", "c.png", "line?break.png", "é ü.png"]
    for number, path in enumerate(paths):
        np.testing.assert_array_equal(np.asarray(open_image(path)), values_of(number))


MEASURE = """
import sys
from pathlib import Path
from visae.config.settings import HuggingFaceSettings
from visae.data.index import build_index

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

settings = HuggingFaceSettings(kind="huggingface", root=sys.argv[1], val_share=0, test_share=0)
build_index(settings, sys.argv[2])
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_memory_is_flat_however_large_files_and_row_groups_are(tmp_path):
    """Of 300 kB a picture, as little is held for 1500 pictures as for 500: what windows hold, and what pages need."""
    content = io.BytesIO()
    Image.fromarray(values_of(0, (300, 333))).save(content, "bmp")
    peaks = {}
    for name, count, options in (
        ("few", 500, {}),
        ("many", 1500, {}),
        ("one group", 1500, {"batch_size": 2000}),
    ):
        rows = {"image": [cell(content.getvalue() + number.to_bytes(4)) for number in range(count)]}
        path = shard(tmp_path / name / "a.parquet", rows, **options)
        assert (pyarrow.parquet.read_metadata(path).num_row_groups == 1) == (name == "one group")
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        command = [sys.executable, "-c", MEASURE, path.parent, tmp_path / "out" / name / "index.parquet"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks[name] = int(done.stdout)
    assert peaks["many"] - peaks["few"] < 60, peaks
    assert peaks["one group"] - peaks["few"] < 60, peaks
