"""Labels of tables: which numbers and texts are classes, and which are warned of or refused."""

from pathlib import Path

import polars
import pytest
from indexed_for_tests import notices
from tables_for_tests import csv, paths, table

from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_integer_labels_keep_their_numbers(six_pictures, index_path, form):
    labels = [7, 3, 3, 7, 10, 3]
    build_index(table(six_pictures, {"path": paths(), "label": labels, "split": ["train"] * 6}, form), index_path)
    assert read_index(index_path)["label"].to_list() == labels
    assert read_classes(index_path) == {3: "3", 7: "7", 10: "10"}
    names = [{3: "wren", 7: None, 10: "crow"}[label] for label in labels]
    columns = {"path": paths(), "label": labels, "split": ["train"] * 6, "label_name": names}
    build_index(table(six_pictures, columns, form), index_path)
    assert read_index(index_path)["label"].to_list() == labels
    assert read_classes(index_path) == {3: "wren", 7: "7", 10: "crow"}


def test_digits_that_parquet_keeps_as_text_are_names(six_pictures, index_path):
    build_index(
        table(six_pictures, {"path": paths(3), "label": ["10", "9", "10"], "split": ["val"] * 3}, "parquet"), index_path
    )
    assert read_classes(index_path) == {0: "10", 1: "9"}


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
def test_whole_floats_are_integers(six_pictures, index_path, written):
    text = "".join(f"{number}.png,{'train' if number < 3 else 'val'},{label}\n" for number, label in enumerate(written))
    build_index(csv(six_pictures, f"path,split,label\n{text}"), index_path)
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
def test_labels_of_any_type_of_number_are_integers(six_pictures, index_path, kind):
    names = [f"kind {number}" for number in NUMBERS]
    columns = six(polars.Series(NUMBERS, dtype=kind), polars.Series(names, dtype=polars.Categorical))
    build_index(table(six_pictures, columns, "parquet"), index_path)
    assert read_index(index_path)["label"].to_list() == NUMBERS
    assert read_classes(index_path) == {0: "kind 0", 2: "kind 2", 10: "kind 10"}


def test_numbers_that_parquet_keeps_as_text_are_integers_where_they_have_names_or_points(six_pictures, index_path):
    for labels, names in (
        ([str(number) for number in NUMBERS], [f"kind {number}" for number in NUMBERS]),
        ([f"{number}.0" for number in NUMBERS], None),
    ):
        build_index(table(six_pictures, six(labels, names), "parquet"), index_path)
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
def test_labels_that_are_no_classes_are_named_by_row(six_pictures, index_path, form, labels, message):
    with pytest.raises(DataError, match=rf"file: .*table\.{form}: {message}"):
        build_index(table(six_pictures, six(labels), form), index_path)


def test_padded_and_mixed_labels_are_noted(six_pictures, index_path):
    build_index(csv(six_pictures, "path,split,label\n0.png,train,007\n1.png,train,008\n"), index_path)
    assert read_classes(index_path) == {7: "7", 8: "8"}
    assert ("note", "labels with leading zeros are read as integers: 007 of row 1 is 7") in notices(index_path)
    build_index(csv(six_pictures, "path,split,label\n0.png,train,7\n1.png,train,x\n"), index_path)
    assert read_classes(index_path) == {0: "7", 1: "x"}
    assert said_of_names(index_path) == [("note", "labels are taken for names, as 'x' of row 2 is no integer")]


@pytest.mark.parametrize("odd", ["-", "?", "(blank)", "'2", '"1,000"', "unknown"])
def test_one_odd_label_among_integers_is_warned_of(six_pictures, index_path, odd):
    build_index(csv(six_pictures, f"path,split,label\n0.png,train,10\n1.png,train,9\n2.png,train,{odd}\n"), index_path)
    (found,) = said_of_names(index_path)
    assert found == ("warning", f"labels are taken for names, as {odd.strip(chr(34))!r} of row 3 is no integer")


def said_of_names(index_path: Path) -> list[tuple[str, str]]:
    found = notices(index_path)
    return [(level, text.partition(";")[0]) for level, text in found if text.startswith("labels are taken for names")]


@pytest.mark.parametrize("column", ["label", "label_name"])
def test_names_in_composed_and_decomposed_letters_are_one_class(six_pictures, index_path, column):
    written = ["m\u00fcller", "zaun", "mu\u0308ller"]
    columns = {"path": paths(3), "split": ["train", "train", "val"], "label": written}
    if column == "label_name":
        columns |= {"label": [1, 2, 1], "label_name": written}
    build_index(table(six_pictures, columns), index_path)
    assert sorted(read_classes(index_path).values()) == ["m\u00fcller", "zaun"]
    assert read_index(index_path)["label"].n_unique() == 2


def test_names_that_look_alike_are_warned_of(six_pictures, index_path):
    names = ["Cat", "cat", "sea lion", "sea  lion", "dog", "dog"]
    build_index(table(six_pictures, {"path": paths(), "split": ["train"] * 6, "label": names}), index_path)
    assert len(read_classes(index_path)) == 5
    texts = " ".join(text for level, text in notices(index_path) if level == "warning")
    assert "'Cat' and 'cat'" in texts
    assert "'sea  lion' and 'sea lion'" in texts
