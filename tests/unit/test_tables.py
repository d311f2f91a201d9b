"""Tables: columns, labels, splits, and what is refused. `test_dataset_kinds.py` tests what all kinds share."""

from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image

from visae.config.settings import TableSettings
from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        values = np.random.default_rng(number).integers(0, 255, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
        Image.new("L", (9, 6), 2).save(tmp_path / f"{number}.mask.png")
    (tmp_path / "classes.txt").write_text("2\tsky\n5\ttree\n")
    return tmp_path


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "birds" / "index.parquet"


def paths(n: int = 6) -> list[str]:
    return [f"{number}.png" for number in range(n)]


def table(folder: Path, columns: dict, form: str = "csv", **options) -> TableSettings:
    file = folder / f"table.{form}"
    frame = polars.DataFrame(columns)
    if form == "csv":
        frame.write_csv(file)
    else:
        frame.write_parquet(file)
    return TableSettings(kind="table", file=str(file), **options)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_integer_labels_keep_their_numbers(folder, index_path, form):
    labels = [7, 3, 3, 7, 10, 3]
    build_index(table(folder, {"path": paths(), "label": labels, "split": ["train"] * 6}, form), index_path)
    assert read_index(index_path)["label"].to_list() == labels
    assert read_classes(index_path) == {3: "3", 7: "7", 10: "10"}
    names = [{3: "wren", 7: None, 10: "crow"}[label] for label in labels]
    columns = {"path": paths(), "label": labels, "split": ["train"] * 6, "label_name": names}
    build_index(table(folder, columns, form), index_path)
    assert read_index(index_path)["label"].to_list() == labels
    assert read_classes(index_path) == {3: "wren", 7: "7", 10: "crow"}


def test_digits_that_parquet_keeps_as_text_are_names(folder, index_path):
    build_index(
        table(folder, {"path": paths(3), "label": ["10", "9", "10"], "split": ["val"] * 3}, "parquet"), index_path
    )
    assert read_classes(index_path) == {0: "10", 1: "9"}


def test_rows_keep_their_order_within_a_split(folder, index_path):
    splits = ["val", "train", "zoo", "train", "test", "val"]
    order = [5, 4, 3, 2, 1, 0]
    build_index(table(folder, {"path": [f"{number}.png" for number in order], "split": splits}), index_path)
    frame = read_index(index_path)
    assert frame["split"].to_list() == ["train", "train", "val", "val", "test", "zoo"]
    assert [Path(path).name for path in frame["path"]] == ["4.png", "2.png", "5.png", "0.png", "1.png", "3.png"]
    assert frame["label"].null_count() == frame["mask_path"].null_count() == 6


def test_splits_are_drawn_by_path_and_stay_when_rows_are_added(folder, index_path):
    many = [f"{number % 6}.png" if number < 6 else f"link-{number}.png" for number in range(300)]
    for name in many[6:]:
        (folder / name).symlink_to(folder / "0.png")

    def drawn(names: list[str]) -> dict[str, str]:
        build_index(table(folder, {"path": names}, val_share=0.3, test_share=0.2), index_path)
        return {Path(path).name: split for path, split in read_index(index_path)["path", "split"].iter_rows()}

    few, all_ = drawn(many[:200]), drawn(many[::-1])
    assert len(all_) == 300
    assert {name: all_[name] for name in few} == few
    counts = [list(all_.values()).count(split) for split in ("val", "test")]
    assert abs(counts[0] - 90) < 32  # four standard deviations
    assert abs(counts[1] - 60) < 28


def test_missing_files_are_skipped_and_listed(folder, index_path):
    settings = table(folder, {"path": [*paths(), "gone.png"], "split": ["train"] * 7}, max_unreadable=0.2)
    build_index(settings, index_path)
    assert len(read_index(index_path)) == 6
    skipped = polars.read_csv(index_path.with_name("skipped.csv"))
    assert skipped["path"].to_list() == [str(folder / "gone.png")]
    assert "FileNotFoundError" in skipped["reason"][0]


def test_some_pictures_may_have_no_mask(folder, index_path):
    masks = [f"{number}.mask.png" if number < 4 else None for number in range(6)]
    columns = {"path": paths(), "split": ["train"] * 4 + ["test"] * 2, "mask": masks, "label": ["sky", "tree"] * 3}
    build_index(table(folder, columns, classes=str(folder / "classes.txt")), index_path)
    frame = read_index(index_path)
    assert frame["mask_path"].is_null().to_list() == [False] * 4 + [True] * 2
    assert frame["label"].to_list() == [2, 5] * 3


def test_tables_are_read_in_batches_of_any_number(folder, index_path):
    """More rows than a batch and a row group, of both forms."""
    names = [paths()[number % 6] for number in range(9000)]
    labels = [f"class {number % 7}" for number in range(9000)]
    splits = [("val", "train")[number % 2] for number in range(9000)]
    frames = []
    for form in ("csv", "parquet"):
        columns = {"path": names, "label": labels, "split": splits}
        build_index(table(folder, columns, form, check="size", hashes=False), index_path)
        frames.append(polars.read_parquet(index_path))
    assert frames[0].equals(frames[1])
    assert frames[0]["image_id"].to_list() == list(range(9000))
    assert frames[0]["label_name"].to_list() == labels[1::2] + labels[::2]


SPLIT = {"split": ["train"] * 2}


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["0.png"]}, r"table\.\w+: it has no column path \(but file\)"),
        ({"path": ["0.png"], "klass": [1], "mood": ["x"]}, r"unknown columns: klass, mood; a table has path, split"),
        ({"path": ["0.png", None], **SPLIT}, "row 2: it has no path"),
        ({"path": ["0.png", "1.png"], "split": ["train", None]}, "row 2: it has no split"),
        ({"path": ["0.png", "1.png"], "split": ["train", "my/val"]}, "row 2: the split 'my/val'.*letters, digits"),
        ({"path": ["0.png", "1.png"], "split": ["train", "val\n"]}, "row 2: the split"),
        ({"path": ["0.png", "1.png"], "label": ["a", None], **SPLIT}, "row 1 has a label and row 2 has none"),
        ({"path": ["0.png", "1.png"], "label": [1, -1], **SPLIT}, "the label -1: labels go from 0"),
        ({"path": ["0.png"], "label_name": ["a"]}, "row 1 has a label_name and no label"),
        (
            {"path": ["0.png", "1.png"], "label": [1, 1], "label_name": ["a", "b"], **SPLIT},
            "row 2: the label 1 is called b here and a before",
        ),
        (
            {"path": ["0.png", "1.png"], "label": [1, 2], "label_name": ["a", "a"], **SPLIT},
            "the labels 1 and 2 are both called a",
        ),
        ({"path": ["0.png"], "label": ["a"], "label_name": ["a"]}, "label_name names integer labels"),
        ({"path": ["0.png"], "mask": ["0.mask.png"]}, "row 1 has a mask; set classes to a file"),
    ],
)
def test_wrong_tables_are_refused(folder, index_path, columns, message, form):
    with pytest.raises(DataError, match=rf"datasets: birds: file: .*{message}"):
        build_index(table(folder, columns, form), index_path)
    assert not index_path.exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [2, 5]}, "no picture has a mask; leave out classes"),
        ({"mask": ["0.mask.png"] * 2, "label": ["sky", "bush"]}, r"the label bush .*none of the classes of masks"),
        ({"mask": ["0.mask.png"] * 2, "label": [2, 3]}, r"the label 3 .*none of the classes of masks"),
        ({"mask": ["0.mask.png", "gone.png"]}, r"1 masks are wrong: .*gone\.png: the mask is missing"),
    ],
)
def test_masks_and_labels_have_to_fit_together(folder, index_path, columns, message):
    columns = {"path": paths(2), "split": ["train", "val"], **columns}
    with pytest.raises(DataError, match=message):
        build_index(table(folder, columns, classes=str(folder / "classes.txt")), index_path)


def test_files_that_are_no_tables_are_refused(folder, index_path):
    (folder / "a.xlsx").touch()
    (folder / "damaged.parquet").write_bytes(b"PAR1")
    (folder / "empty.csv").touch()
    (folder / "ragged.csv").write_text("path,split\n0.png,train\n1.png\n")
    (folder / "header.csv").write_text("path,split\n")
    polars.DataFrame({"path": ["0.png"], "label": [1.5]}).write_parquet(folder / "float.parquet")
    for name, message in {
        "gone.csv": "there is no such file",
        "a.xlsx": "a table is a .csv or .parquet file",
        "damaged.parquet": "it cannot be read as a table",
        "empty.csv": "it cannot be read as a table",
        "ragged.csv": "it cannot be read as a table",
        "header.csv": "it has no rows",
        "float.parquet": "column label has type double; make it integers or texts",
    }.items():
        with pytest.raises(DataError, match=f"file: .*{name}: {message}"):
            build_index(TableSettings(kind="table", file=str(folder / name)), index_path)


def test_variables_that_are_not_set_are_named(folder, index_path):
    with pytest.raises(DataError, match=r"file: .*NOWHERE_SET.* not set"):
        build_index(TableSettings(kind="table", file="${NOWHERE_SET}/a.csv"), index_path)
    settings = table(folder, {"path": paths()}, root="${NOWHERE_SET}")
    with pytest.raises(DataError, match=r"root: .*NOWHERE_SET.* not set"):
        build_index(settings, index_path)


def test_a_table_with_a_byte_order_mark_and_quotes(folder, index_path):
    (folder / "a, b.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "excel.csv").write_bytes('\ufeffpath,split,label\r\n"a, b.png",train,été\r\n'.encode())
    build_index(TableSettings(kind="table", file=str(folder / "excel.csv")), index_path)
    assert Path(read_index(index_path)["path"][0]).name == "a, b.png"
    assert read_classes(index_path) == {0: "été"}
