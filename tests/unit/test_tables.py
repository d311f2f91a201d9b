"""Tables: columns, labels, splits, and what is refused. `test_dataset_kinds.py` tests what all kinds share."""

import gzip
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image

from visae.config.settings import TableSettings
from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError
from visae.files import read_json


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
        ({"path": ["0.png", "1.png"], "split": ["train", "val\n"]}, "row 2: split has a line break"),
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
    polars.DataFrame({"path": ["0.png"], "label": [True]}).write_parquet(folder / "bool.parquet")
    for name, message in {
        "gone.csv": "there is no such file",
        "a.xlsx": "a table is a .csv or .parquet file",
        "damaged.parquet": "it cannot be read as a table",
        "empty.csv": "it cannot be read as a table",
        "ragged.csv": "it cannot be read as a table",
        "header.csv": "it has no rows",
        "bool.parquet": "column label has type bool; make it integers or texts",
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


def csv(folder: Path, text: str | bytes, **options) -> TableSettings:
    file = folder / "table.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return TableSettings(kind="table", file=str(file), **options)


def notices(index_path: Path) -> list[tuple[str, str]]:
    return [(entry["level"], entry["text"]) for entry in read_json(index_path.with_name("summary.json"))["notices"]]


ROWS = "path,split,label\n0.png,train,cat\n1.png,train,dog\n2.png,val,cat\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",path,split,label\n0,0.png,train,cat\n", "column 1 has no name: pandas .*index=False"),
        ("path,split,label,\n0.png,train,cat,\n", "column 4 has no name: pandas .*index=False"),
        ("Unnamed: 0,path,split\n0,0.png,train\n", "column 1 is called Unnamed: 0: pandas .*index=False"),
        ("index,path,split\n0,0.png,train\n", "column 1 is called index: pandas .*index=False"),
        (ROWS.replace(",", ";"), "separated by semicolons; write it with commas"),
        (ROWS.replace(",", "\t"), "separated by tabs; write it with commas"),
        (ROWS.replace(",", "|"), "separated by bars; write it with commas"),
        (ROWS.replace(",", " "), "separated by spaces; write it with commas"),
        ("sep=,\n" + ROWS, "its first line names no columns but is 'sep=,'; remove it"),
        ("# mine\n" + ROWS, "its first line names no columns but is '# mine'; remove it"),
        (ROWS.replace("path", "Path"), "the column Path: write its name in lower case: path"),
        (ROWS.replace("label", "Label"), "the column Label: write its name in lower case: label"),
        (ROWS.replace("split", "label"), "2 columns are called label; leave one"),
        (ROWS.partition("\n")[2], r"no column path \(but 0\.png, .*the first line of a CSV file names the columns"),
        (ROWS.encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (ROWS.encode("utf-16-le"), "bytes that are no text, as UTF-16 has; save it as UTF-8"),
        (ROWS.replace("cat", "été").encode("latin-1"), "cannot be read as a table: .*save it as UTF-8"),
        (gzip.compress(ROWS.encode()), "it is compressed; run `gunzip` on it first"),
        (b"PK\x03\x04 and more", "it is a zip file or a spreadsheet"),
        (b"PAR1 and more", r"it is a Parquet file; let its name end in \.parquet"),
        (ROWS.replace("val", "Val"), "row 3: the split 'Val' looks like val.*write val"),
        (ROWS.replace("val", "validation"), "row 3: the split 'validation' looks like val"),
        (ROWS.replace("val", "dev"), "row 3: the split 'dev' looks like val"),
        (ROWS.replace("train", "TRAIN"), "row 1: the split 'TRAIN' looks like train"),
        (ROWS.replace("train", "training"), "row 1: the split 'training' looks like train"),
        (ROWS.replace("val", "Testing"), "row 3: the split 'Testing' looks like test"),
        (ROWS.replace("1.png", "sub\\1.png"), r"row 2: path: sub\\1\.png: it has backslashes.*write / instead"),
        (ROWS.replace("1.png", "https://there/1.png"), "row 2: path: https://there/1.png: it is an address"),
        (ROWS.replace("1.png", '"1\n.png"'), "row 2: path has a line break; is a quotation mark not closed"),
        (ROWS.replace("dog", '"dog') + '3.png,val,"dog"\n', "line break|cannot be read as a table"),
        (ROWS.replace("dog", "cat"), "all pictures are of one class, cat; .*leave the column label out"),
        (ROWS + "3.png,val,bird\n", "val has classes that train does not have: 'bird'"),
        (ROWS.replace("cat", "").replace("dog", "nan"), "the column label is empty in all rows"),
        ("path,split,mask\n0.png,train,\n1.png,val,\n", "the column mask is empty in all rows"),
        (ROWS.replace("2.png", "nan"), "row 3 .*: it has no path"),
        (ROWS.replace("val", "NaN"), "row 3 .*: it has no split"),
    ],
)
def test_tables_as_other_programs_write_them_are_explained(folder, index_path, text, message):
    with pytest.raises(DataError, match=rf"file: .*table\.csv: .*{message}"):
        build_index(csv(folder, text), index_path)
    assert not index_path.exists()


def test_pandas_index_in_parquet_is_named(folder, index_path):
    polars.DataFrame({"path": ["0.png"], "__index_level_0__": [7]}).write_parquet(folder / "a.parquet")
    with pytest.raises(DataError, match=r"column 2 is called __index_level_0__: pandas .*index=False"):
        build_index(TableSettings(kind="table", file=str(folder / "a.parquet")), index_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spaces_around_cells_are_no_part_of_them(folder, index_path, end):
    text = "path, split, label\n0.png, train, cat\n1.png , train, dog\n\n2.png, val, cat \n"
    build_index(csv(folder, text.replace("\n", end)), index_path)
    frame = read_index(index_path)
    assert [Path(path).name for path in frame["path"]] == ["0.png", "1.png", "2.png"]
    assert frame["label_name"].to_list() == ["cat", "dog", "cat"]
    assert [level for level, text in notices(index_path) if "spaces" in text] == ["note"]


def test_a_file_whose_name_has_a_backslash_is_read(folder, index_path):
    (folder / "a\\b.png").write_bytes((folder / "0.png").read_bytes())
    build_index(csv(folder, "path,split\na\\b.png,train\n"), index_path)
    assert len(read_index(index_path)) == 1


@pytest.mark.parametrize("text", ["path,split\n0.png,zoo\n1.png,zoo\n", "path,split\n0.png,train\n", "path\n0.png\n"])
def test_splits_that_are_missing_are_said(folder, index_path, text):
    build_index(csv(folder, text, val_share=0.0, test_share=0.0), index_path)
    texts = [text for _, text in notices(index_path)]
    assert any("no picture is in val: nothing can be measured" in text for text in texts)
    assert any("no picture is in train" in text for text in texts) == ("zoo" in text)


NUMBERS = [0, 10, 2, 2, 10, 0]


def six(labels, names=None) -> dict:
    columns = {"path": paths(), "split": ["train"] * 3 + ["val"] * 3, "label": labels}
    return columns | ({} if names is None else {"label_name": names})


@pytest.mark.parametrize(
    "written",
    [
        ["0.0", "10.0", "2.0", "2.0", "10.0", "0.0"],
        ["0", "10.0", "2", "2.0", "10", "0.00"],
        ["000", "010", "002", "2", "10", "0"],
        ["-0.0", "+10", "2.", "2e0", "1e1", "0"],
        [" 0", "10 ", " 2 ", "2", "10", "0"],
    ],
)
def test_whole_floats_are_integers(folder, index_path, written):
    text = "".join(f"{number}.png,{'train' if number < 3 else 'val'},{label}\n" for number, label in enumerate(written))
    build_index(csv(folder, f"path,split,label\n{text}"), index_path)
    assert read_index(index_path)["label"].to_list() == NUMBERS
    assert read_classes(index_path) == {0: "0", 2: "2", 10: "10"}


@pytest.mark.parametrize(
    "kind",
    [
        polars.Float64,
        polars.Float32,
        polars.Decimal(12, 2),
        polars.Int8,
        polars.UInt64,
        polars.Int64,
    ],
)
def test_labels_of_any_type_of_number_are_integers(folder, index_path, kind):
    names = [f"kind {number}" for number in NUMBERS]
    columns = six(polars.Series(NUMBERS, dtype=kind), polars.Series(names, dtype=polars.Categorical))
    build_index(table(folder, columns, "parquet"), index_path)
    assert read_index(index_path)["label"].to_list() == NUMBERS
    assert read_classes(index_path) == {0: "kind 0", 2: "kind 2", 10: "kind 10"}


def test_numbers_that_parquet_keeps_as_text_are_integers_where_they_have_names_or_points(folder, index_path):
    for labels, names in (
        ([str(number) for number in NUMBERS], [f"kind {number}" for number in NUMBERS]),
        ([f"{number}.0" for number in NUMBERS], None),
    ):
        build_index(table(folder, six(labels, names), "parquet"), index_path)
        assert read_index(index_path)["label"].to_list() == NUMBERS


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, 2.5, 0.0, 1.0, 0.0], r"row 3: the label 2\.5 is a number but no integer"),
        ([0.0, 1.0, float("inf"), 0.0, 1.0, 0.0], r"row 3: the label inf: labels go from 0"),
        ([0.0, 1.0, 1e300, 0.0, 1.0, 0.0], r"row 3: the label 1e\+?300: labels go from 0 to 2147483647"),
        ([0, 1, 2**31, 0, 1, 0], r"row 3: the label 2147483648: labels go from 0 to 2147483647"),
        ([0, 1, -1, 0, 1, 0], r"row 3: the label -1: labels go from 0 .*stands for none"),
        ([0.0, 1.0, None, 0.0, 1.0, 0.0], r"row 1 has a label and row 3 has none; label all pictures or none"),
        ([0.0, 1.0, float("nan"), 0.0, 1.0, 0.0], r"row 1 has a label and row 3.* has none"),
        (["0", "1", "NA", "0", "1", "0"], r"row 1 has a label and row 3 \(label is 'NA', which counts as empty\)"),
        (["a", "3", "3.0", "a", "3", "3.0"], r"row 3: the label 3\.0, and 3 of row 2, are one number written in two"),
        (["a", "b", "c", "a", "b", "d"], r"val has classes that train does not have: 'd'"),
    ],
)
def test_labels_that_are_no_classes_are_named_by_row(folder, index_path, form, labels, message):
    with pytest.raises(DataError, match=rf"file: .*table\.{form}: {message}"):
        build_index(table(folder, six(labels), form), index_path)


def test_padded_and_mixed_labels_are_noted(folder, index_path):
    build_index(csv(folder, "path,split,label\n0.png,train,007\n1.png,train,008\n"), index_path)
    assert read_classes(index_path) == {7: "7", 8: "8"}
    assert ("note", "labels with leading zeros are read as integers: 007 of row 1 is 7") in notices(index_path)
    build_index(csv(folder, "path,split,label\n0.png,train,7\n1.png,train,x\n"), index_path)
    assert read_classes(index_path) == {0: "7", 1: "x"}
    assert any("labels are taken for names, as 'x' of row 2 is no integer" in text for _, text in notices(index_path))


@pytest.mark.parametrize("column", ["label", "label_name"])
def test_names_in_composed_and_decomposed_letters_are_one_class(folder, index_path, column):
    written = ["m\u00fcller", "zaun", "mu\u0308ller"]
    columns = {"path": paths(3), "split": ["train", "train", "val"], "label": written}
    if column == "label_name":
        columns |= {"label": [1, 2, 1], "label_name": written}
    build_index(table(folder, columns), index_path)
    assert sorted(read_classes(index_path).values()) == ["m\u00fcller", "zaun"]
    assert read_index(index_path)["label"].n_unique() == 2


def test_names_that_look_alike_are_warned_of(folder, index_path):
    names = ["Cat", "cat", "sea lion", "sea  lion", "dog", "dog"]
    build_index(table(folder, {"path": paths(), "split": ["train"] * 6, "label": names}), index_path)
    assert len(read_classes(index_path)) == 5
    texts = " ".join(text for level, text in notices(index_path) if level == "warning")
    assert "'Cat' and 'cat'" in texts
    assert "'sea  lion' and 'sea lion'" in texts
