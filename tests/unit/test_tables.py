"""Tables: columns, labels, splits, and what is refused. `test_dataset_kinds.py` tests what all kinds share."""

import gzip
from pathlib import Path

import polars
import pytest
from indexed_for_tests import notices
from tables_for_tests import csv, paths, table

from visae.config.settings import TableSettings
from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError


def test_rows_keep_their_order_within_a_split(six_pictures, index_path):
    splits = ["val", "train", "zoo", "train", "test", "val"]
    order = [5, 4, 3, 2, 1, 0]
    build_index(table(six_pictures, {"path": [f"{number}.png" for number in order], "split": splits}), index_path)
    frame = read_index(index_path)
    assert frame["split"].to_list() == ["train", "train", "val", "val", "test", "zoo"]
    assert [Path(path).name for path in frame["path"]] == ["4.png", "2.png", "5.png", "0.png", "1.png", "3.png"]
    assert frame["label"].null_count() == frame["mask_path"].null_count() == 6


def test_splits_are_drawn_by_path_and_stay_when_rows_are_added(six_pictures, index_path):
    many = [f"{number % 6}.png" if number < 6 else f"link-{number}.png" for number in range(300)]
    for name in many[6:]:
        (six_pictures / name).symlink_to(six_pictures / "0.png")

    def drawn(names: list[str]) -> dict[str, str]:
        build_index(table(six_pictures, {"path": names}, val_share=0.3, test_share=0.2), index_path)
        return {Path(path).name: split for path, split in read_index(index_path)["path", "split"].iter_rows()}

    few, all_ = drawn(many[:200]), drawn(many[::-1])
    assert len(all_) == 300
    assert {name: all_[name] for name in few} == few
    counts = [list(all_.values()).count(split) for split in ("val", "test")]
    assert abs(counts[0] - 90) < 32  # four standard deviations
    assert abs(counts[1] - 60) < 28


def test_missing_files_are_skipped_and_listed(six_pictures, index_path):
    settings = table(six_pictures, {"path": [*paths(), "gone.png"], "split": ["train"] * 7}, max_unreadable=0.2)
    build_index(settings, index_path)
    assert len(read_index(index_path)) == 6
    skipped = polars.read_csv(index_path.with_name("skipped.csv"))
    assert skipped["path"].to_list() == [str(six_pictures / "gone.png")]
    assert "FileNotFoundError" in skipped["reason"][0]


def test_some_pictures_may_have_no_mask(six_pictures, index_path):
    masks = [f"{number}.mask.png" if number < 4 else None for number in range(6)]
    columns = {"path": paths(), "split": ["train"] * 4 + ["test"] * 2, "mask": masks, "label": ["sky", "tree"] * 3}
    build_index(table(six_pictures, columns, classes=str(six_pictures / "classes.txt")), index_path)
    frame = read_index(index_path)
    assert frame["mask_path"].is_null().to_list() == [False] * 4 + [True] * 2
    assert frame["label"].to_list() == [2, 5] * 3


def test_tables_are_read_in_batches_of_any_number(six_pictures, index_path):
    """More rows than a batch and a row group, of both forms."""
    names = [paths()[number % 6] for number in range(9000)]
    labels = [f"class {number % 7}" for number in range(9000)]
    splits = [("val", "train")[number % 2] for number in range(9000)]
    frames = []
    for form in ("csv", "parquet"):
        columns = {"path": names, "label": labels, "split": splits}
        build_index(table(six_pictures, columns, form, check="size", hashes=False), index_path)
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
def test_wrong_tables_are_refused(six_pictures, index_path, columns, message, form):
    with pytest.raises(DataError, match=rf"datasets: birds: file: .*{message}"):
        build_index(table(six_pictures, columns, form), index_path)
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
def test_masks_and_labels_have_to_fit_together(six_pictures, index_path, columns, message):
    columns = {"path": paths(2), "split": ["train", "val"], **columns}
    with pytest.raises(DataError, match=message):
        build_index(table(six_pictures, columns, classes=str(six_pictures / "classes.txt")), index_path)


def test_files_that_are_no_tables_are_refused(six_pictures, index_path):
    (six_pictures / "a.xlsx").touch()
    (six_pictures / "damaged.parquet").write_bytes(b"PAR1")
    (six_pictures / "empty.csv").touch()
    (six_pictures / "ragged.csv").write_text("path,split\n0.png,train\n1.png\n")
    (six_pictures / "header.csv").write_text("path,split\n")
    polars.DataFrame({"path": ["0.png"], "label": [True]}).write_parquet(six_pictures / "bool.parquet")
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
            build_index(TableSettings(kind="table", file=str(six_pictures / name)), index_path)


def test_variables_that_are_not_set_are_named(six_pictures, index_path):
    with pytest.raises(DataError, match=r"file: .*NOWHERE_SET.* not set"):
        build_index(TableSettings(kind="table", file="${NOWHERE_SET}/a.csv"), index_path)
    settings = table(six_pictures, {"path": paths()}, root="${NOWHERE_SET}")
    with pytest.raises(DataError, match=r"root: .*NOWHERE_SET.* not set"):
        build_index(settings, index_path)


def test_a_table_with_a_byte_order_mark_and_quotes(six_pictures, index_path):
    (six_pictures / "a, b.png").write_bytes((six_pictures / "0.png").read_bytes())
    (six_pictures / "excel.csv").write_bytes('\ufeffpath,split,label\r\n"a, b.png",train,été\r\n'.encode())
    build_index(TableSettings(kind="table", file=str(six_pictures / "excel.csv")), index_path)
    assert Path(read_index(index_path)["path"][0]).name == "a, b.png"
    assert read_classes(index_path) == {0: "été"}


ROWS = "path,split,label\n0.png,train,cat\n1.png,train,dog\n2.png,val,cat\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",path,split,label\n0,0.png,train,cat\n", "column 1 has no name: pandas .*index=False"),
        ("path,split,label,\n0.png,train,cat,\n", "column 4, the last, has no name: remove the comma"),
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
        (gzip.compress(ROWS.encode(), mtime=0), "it is compressed; run `gunzip` on it first"),
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
        (ROWS.replace("dog", "#REF!"), "row 2: the label '#REF!' is what a spreadsheet writes where a formula failed"),
        (ROWS.replace("dog", "#DIV/0!"), "row 2: the label '#DIV/0!' is what a spreadsheet writes"),
        (ROWS.replace("dog", "Err:502"), "row 2: the label 'Err:502' is what a spreadsheet writes"),
    ],
)
def test_tables_as_other_programs_write_them_are_explained(six_pictures, index_path, text, message):
    with pytest.raises(DataError, match=rf"file: .*table\.csv: .*{message}"):
        build_index(csv(six_pictures, text), index_path)
    assert not index_path.exists()


def test_pandas_index_in_parquet_is_named(six_pictures, index_path):
    polars.DataFrame({"path": ["0.png"], "__index_level_0__": [7]}).write_parquet(six_pictures / "a.parquet")
    with pytest.raises(DataError, match=r"column 2 is called __index_level_0__: pandas .*index=False"):
        build_index(TableSettings(kind="table", file=str(six_pictures / "a.parquet")), index_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spaces_around_cells_are_no_part_of_them(six_pictures, index_path, end):
    text = "path, split, label\n0.png, train, cat\n1.png , train, dog\n\n2.png, val, cat \n"
    build_index(csv(six_pictures, text.replace("\n", end)), index_path)
    frame = read_index(index_path)
    assert [Path(path).name for path in frame["path"]] == ["0.png", "1.png", "2.png"]
    assert frame["label_name"].to_list() == ["cat", "dog", "cat"]
    assert [level for level, text in notices(index_path) if "spaces" in text] == ["note"]


def test_a_file_whose_name_has_a_backslash_is_read(six_pictures, index_path):
    (six_pictures / "a\\b.png").write_bytes((six_pictures / "0.png").read_bytes())
    build_index(csv(six_pictures, "path,split\na\\b.png,train\n"), index_path)
    assert len(read_index(index_path)) == 1


@pytest.mark.parametrize("text", ["path,split\n0.png,zoo\n1.png,zoo\n", "path,split\n0.png,train\n", "path\n0.png\n"])
def test_splits_that_are_missing_are_said(six_pictures, index_path, text):
    build_index(csv(six_pictures, text, val_share=0.0, test_share=0.0), index_path)
    texts = [text for _, text in notices(index_path)]
    assert any("no picture is in val: nothing can be measured" in text for text in texts)
    assert any("no picture is in train" in text for text in texts) == ("zoo" in text)
