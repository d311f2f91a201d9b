"""A user's own vectors: arrays, Parquet of lists, a store from elsewhere; and what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from visae.activations.check import check_store
from visae.activations.given import adopt_activations, index_given, write_store
from visae.activations.schema import DTYPES
from visae.activations.store import ActivationStore
from visae.config.settings import ActivationsSettings
from visae.data.index import SCHEMA, read_index
from visae.errors import StoreError
from visae.files import read_json

D_MODEL = 6


def settings(root: Path, **options: object) -> ActivationsSettings:
    return ActivationsSettings(kind="activations", root=str(root), **options)


def frame(n: int, tokens: list[int] | None, first: int = 100, seed: int = 0) -> pl.DataFrame:
    """Rows of n things whose own ids start at `first`; of one row each where there are no tokens."""
    ids = np.repeat(np.arange(first, first + n), len(tokens or [0]))
    values = np.random.default_rng(seed).normal(size=(len(ids), D_MODEL)).astype(np.float32)
    columns = {"image_id": ids, "activation": pl.Series(values, dtype=pl.Array(pl.Float32, D_MODEL))}
    return pl.DataFrame(columns | ({"token": tokens * n} if tokens else {}))


def adopted(root: Path, folder: Path, **options: object) -> ActivationStore:
    adopt_activations(settings(root, **options), folder / "manifest.json")
    assert check_store(folder) == []
    return ActivationStore.open(folder / "manifest.json")


@pytest.mark.parametrize("kind", ["array", "list", "float64", "float16"])
@pytest.mark.parametrize("tokens", [None, [-1, 0, 1, 2]])
def test_lists_of_floats_become_a_store(tmp_path: Path, kind: str, tokens: list[int] | None) -> None:
    rows = frame(50, tokens)
    kinds = {"list": pl.List(pl.Float32), "float64": pl.Array(pl.Float64, D_MODEL), "float16": pl.List(pl.Float16)}
    if kind in kinds:
        rows = rows.with_columns(pl.col("activation").cast(kinds[kind]))
    (tmp_path / "mine").mkdir()
    # In small row groups, so that a picture's rows lie across their borders.
    rows.write_parquet(tmp_path / "mine" / "a.parquet", row_group_size=7)
    store = adopted(tmp_path / "mine", tmp_path / "store")
    assert store.splits == {"train": range(45), "val": range(45, 50)}
    assert list(store.choice.tokens) == (tokens or [0])
    expected = rows["activation"].cast(pl.Array(pl.Float32, D_MODEL)).to_numpy().reshape(50, -1, D_MODEL)
    assert np.array_equal(store.read(range(50), "all").numpy(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_splits_come_from_subfolders_and_ids_are_kept(tmp_path: Path, dtype: str) -> None:
    root = tmp_path / "mine"
    parts = {"train/1": frame(20, [0, 1], 0, 1), "train/2": frame(5, [0, 1], 70, 2), "val/a": frame(4, [0, 1], 900, 3)}
    for name, rows in parts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(root / f"{name}.parquet")
    store = adopted(root, tmp_path / "store", dtype=dtype)
    assert store.splits == {"train": range(25), "val": range(25, 29)}
    joined = np.concatenate([rows["activation"].to_numpy() for rows in parts.values()]).reshape(29, 2, D_MODEL)
    assert torch.equal(store.read(range(29), "all"), torch.from_numpy(joined).to(DTYPES[dtype]).float())
    index_given(settings(root), tmp_path / "index.parquet")
    index = read_index(tmp_path / "index.parquet")
    assert dict(index.schema) == SCHEMA
    assert index["split"].to_list() == ["train"] * 25 + ["val"] * 4
    assert [path.rsplit("/", 1)[1] for path in index["path"].gather([0, 19, 20, 25])] == [
        "1.parquet:0",
        "1.parquet:19",
        "2.parquet:70",
        "a.parquet:900",
    ]


def test_a_store_from_elsewhere_is_linked_and_not_copied(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 3, D_MODEL)).astype(np.float32)
    write_store(tmp_path / "theirs", values, [-1, 0, 1], {"train": 20, "val": 10}, shards=2)
    store = adopted(tmp_path / "theirs", tmp_path / "store")
    assert np.array_equal(store.read(range(30), "all").numpy(), values)
    assert all(path.is_symlink() for path in (tmp_path / "store").iterdir())
    index_given(settings(tmp_path / "theirs"), tmp_path / "index.parquet")
    assert read_index(tmp_path / "index.parquet")["split"].to_list() == ["train"] * 20 + ["val"] * 10
    # A shard alone, without its manifest, is read as any other Parquet.
    (tmp_path / "theirs" / "manifest.json").unlink()
    again = adopted(tmp_path / "theirs", tmp_path / "again", val_share=0.0)
    assert np.array_equal(again.read(range(30), "all").numpy(), values)


def test_shuffled_rows_are_refused(tmp_path: Path) -> None:
    frame(30, [0, 1]).sample(fraction=1.0, shuffle=True, seed=1).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(StoreError, match=r"a\.parquet: .*sort by image_id and token|no multiple of"):
        adopted(tmp_path, tmp_path / "store")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop("activation"), r"no column 'activation'; it has image_id, token"),
        (lambda rows: rows.drop("image_id"), r"no column 'image_id'"),
        (lambda rows: rows.head(-1), r"19 rows are no multiple of 2, the tokens of the first picture"),
        (lambda rows: rows.head(0), r"no rows"),
        (
            lambda rows: rows.with_columns(activation=pl.col("image_id")),
            r"'activation', row 1: .*int64; .* lists of floats",
        ),
        (lambda rows: rows.with_columns(activation=pl.lit("a")), r"'activation', row 1: .*string; .* lists of floats"),
        (
            lambda rows: rows.with_columns(token=pl.Series([0, 1] * 9 + [1, 0])),
            r"row 19: image_id 109, .*those of the first",
        ),
        (
            lambda rows: rows.with_columns(activation=pl.Series([[1.0, 2.0]] * 19 + [[1.0]])),
            r"'activation', row 20: its list has 1 values, that of the first 2",
        ),
        (
            lambda rows: rows.with_columns(activation=pl.Series([[1.0, 2.0]] * 19 + [[1.0, float("nan")]])),
            r"'activation', row 20: nan is not finite",
        ),
        (
            lambda rows: rows.with_columns(activation=pl.Series([[1.0, 2.0]] * 19 + [None])),
            r"'activation', row 20: it is empty",
        ),
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, change, message: str) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    change(frame(10, [0, 1])).write_parquet(root / "a.parquet")
    with pytest.raises(StoreError, match=message):
        adopted(root, tmp_path / "store")
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_files_of_unlike_width_are_refused(tmp_path: Path) -> None:
    frame(4, None).write_parquet(tmp_path / "a.parquet")
    wide = pl.DataFrame({"image_id": [1], "activation": [[1.0, 2.0]]})
    wide.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(StoreError, match=r"b\.parquet: activations of 2 values, elsewhere of 6"):
        adopted(tmp_path, tmp_path / "store")


def test_a_later_file_without_rows_or_of_other_columns_is_named(tmp_path: Path) -> None:
    frame(4, [0, 1]).write_parquet(tmp_path / "a.parquet")
    others = {"no rows": frame(4, [0, 1]).head(0), "row 2: image_id 101, token 0: the rows": frame(4, None)}
    for message, rows in others.items():
        rows.write_parquet(tmp_path / "b.parquet")
        with pytest.raises(StoreError, match=rf"b\.parquet: .*{message}"):
            index_given(settings(tmp_path), tmp_path / "index.parquet")


def test_folders_without_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no such folder"):
        adopted(tmp_path / "nothing", tmp_path / "store")
    (tmp_path / "val").mkdir()
    frame(4, None).write_parquet(tmp_path / "val" / "a.parquet")
    with pytest.raises(StoreError, match=r"train: no Parquet files"):
        adopted(tmp_path, tmp_path / "store")


def tensors(shape: tuple[int, ...]) -> pa.Array:
    """Arrow's own tensors, one a row."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones(shape, dtype=np.float32))


def column_of(name: str, values: list, kind: pl.DataType | None = None):
    """Change rows so that a column has these values, the last ones of ten things with tokens 0 and 1."""

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        kept = rows[name].head(20 - len(values)).cast(kind or rows[name].dtype)
        return rows.with_columns(pl.concat([kept, pl.Series(name, values, dtype=kind or rows[name].dtype)]))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.with_columns(pl.col("image_id").cast(str)), r"'image_id', row 1: '100' is .*string; make"),
        (lambda rows: rows.with_columns(pl.col("image_id") == 0), r"'image_id', row 1: False is bool; make"),
        (column_of("image_id", [None]), r"'image_id', row 20: it is empty"),
        (column_of("image_id", [9.5, 9.5], pl.Float64), r"'image_id', row 19: 9\.5 is no integer"),
        (column_of("image_id", [float("nan")] * 2, pl.Float32), r"'image_id', row 19: nan is no integer"),
        (column_of("image_id", [2.0**60] * 2, pl.Float64), r"'image_id', row 19: .* is no integer"),
        (column_of("image_id", [-7, -7]), r"'image_id', row 19: -7: it goes from 0"),
        (column_of("image_id", [2**63, 2**63], pl.UInt64), r"'image_id', row 19: 9223372036854775808: it goes"),
        (column_of("image_id", [100, 100]), r"'image_id', row 19: 100 is the id of an earlier picture"),
        (column_of("token", [40_000]), r"'token', row 20: 40000: it goes from -32768 to 32767"),
        (column_of("token", [-40_000]), r"'token', row 20: -40000: it goes from -32768 to 32767"),
        (column_of("token", [0]), r"'token', row 20: image_id 109, token 0: .* first picture \(0, 1\)"),
        (lambda rows: rows.with_columns(pl.col("token").cast(str)), r"'token', row 1: '0' is .*string; make"),
        (lambda rows: rows.with_columns(token=0), r"'token', row 2: image_id 100 has the token 0 twice"),
        (lambda rows: rows.drop("token"), r"row 2: image_id 100 has the token 0 twice; only a column 'token'"),
        (lambda rows: rows.with_columns(token=pl.Series([1, 0] * 10)), r"'token', row 2: 0 comes after 1"),
        (lambda rows: rows.with_columns(token=pl.Series([0, -1] * 10)), r"'token', row 2: -1 comes after 0"),
        (lambda rows: rows.with_columns(token=pl.Series([-2, -1] * 10)), r"'token', row 1: -2: no token is 0 or above"),
        (lambda rows: rows.rename({"token": "Token"}), r"column 'Token': write its name 'token'"),
        (lambda rows: rows.rename({"activation": "embedding"}), r"no column 'activation'; it has image_id, embedding"),
        (column_of("activation", [[1.0] * 5 + [float("-inf")]]), r"'activation', row 20: -inf is not finite"),
        (column_of("activation", [[1.0] * 5 + [None]]), r"'activation', row 20: its list has an empty value"),
        (
            column_of("activation", [[1e300] * 6], pl.Array(pl.Float64, 6)),
            r"'activation', row 20: 1e\+300 is not finite",
        ),
        (lambda rows: rows.with_columns(activation=pl.lit([True])), r"'activation', row 1: .*bool.* lists of floats"),
        (lambda rows: rows.with_columns(activation=pl.lit([[1.0]])), r"'activation', row 1: .*list.* lists of floats"),
        (lambda rows: rows.with_columns(activation=pl.lit([], pl.List(pl.Float32))), r"row 1: its list has 0 values"),
        (
            lambda rows: rows.to_arrow().set_column(1, "activation", pa.array([b"ab"] * 20, pa.binary(2))),
            r"'activation', row 1: bytes are read of shards that visae wrote only",
        ),
        (
            lambda rows: rows.to_arrow().set_column(1, "activation", tensors((20, 2, 3))),
            r"'activation', row 1: the column is .*tensor.*; it has to hold lists of floats",
        ),
        (lambda rows: rows.with_columns(activation=pl.lit(b"abcd")), r"'activation', row 1: .*binary; .* lists"),
    ],
)
def test_cells_that_are_wrong_are_named_when_indexed(tmp_path: Path, change, message: str) -> None:
    """File, column and row, before anything is written; none is a traceback."""
    root = tmp_path / "mine"
    root.mkdir()
    changed = change(frame(10, [0, 1]))
    pq.write_table(changed if isinstance(changed, pa.Table) else changed.to_arrow(), root / "a.parquet")
    for act in (lambda: adopted(root, tmp_path / "store"), lambda: index_given(settings(root), tmp_path / "i.parquet")):
        with pytest.raises(StoreError, match=rf"mine/a\.parquet: .*{message}"):
            act()
    assert not (tmp_path / "store" / "manifest.json").exists()
    assert not (tmp_path / "i.parquet").exists()


def test_a_row_far_down_is_named(tmp_path: Path) -> None:
    """Beyond the rows that are read at a time, and across a border between two reads."""
    rows = frame(7000, [0, 1, 2])
    ids = rows["image_id"].to_numpy().copy()
    for row, message in ((20_001, r"row 20001: image_id 1, token 2"), (8193, r"row 8193: image_id 1, token 2")):
        changed = ids.copy()
        changed[row - 1] = 1
        rows.with_columns(image_id=changed).write_parquet(tmp_path / "a.parquet")
        with pytest.raises(StoreError, match=message):
            adopted(tmp_path, tmp_path / "store")
    values = rows["activation"].to_numpy().copy()
    values[17_999, 3] = np.inf
    wrong = pl.Series(values, dtype=pl.Array(pl.Float32, D_MODEL))
    rows.with_columns(activation=wrong).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(StoreError, match=r"'activation', row 18000: inf is not finite"):
        adopted(tmp_path, tmp_path / "store")


@pytest.mark.parametrize("kind", ["float", "unsigned", "category", "tensors", "integers"])
def test_loosely_typed_columns_are_read(tmp_path: Path, kind: str) -> None:
    """Ids as whole floats, as pandas makes of them beside an empty cell; other integers; lists of integers."""
    rows = frame(30, [0, 1])
    expected = rows["activation"].to_numpy().reshape(30, 2, D_MODEL)
    if kind == "float":
        rows = rows.with_columns(pl.col("image_id", "token").cast(pl.Float64))
    if kind == "unsigned":
        rows = rows.with_columns(pl.col("image_id").cast(pl.UInt64), pl.col("token").cast(pl.UInt8))
    table = rows.to_arrow()
    if kind == "category":
        table = table.set_column(0, "image_id", table["image_id"].dictionary_encode())
    if kind == "tensors":
        flat = pa.FixedShapeTensorArray.from_numpy_ndarray(expected.reshape(-1, D_MODEL))
        table = table.set_column(table.schema.get_field_index("activation"), "activation", flat)
    if kind == "integers":
        expected = np.rint(expected * 100)
        table = rows.with_columns(activation=pl.Series(expected.reshape(-1, D_MODEL).astype(np.int16))).to_arrow()
    (tmp_path / "mine").mkdir()
    pq.write_table(table, tmp_path / "mine" / "a.parquet")
    store = adopted(tmp_path / "mine", tmp_path / "store")
    assert np.array_equal(store.read(range(30), "all").numpy(), expected)
    index_given(settings(tmp_path / "mine"), tmp_path / "index.parquet")
    assert read_index(tmp_path / "index.parquet")["path"][-1] == f"{tmp_path}/mine/a.parquet:129"


def test_values_beyond_float16_say_which_dtype_holds_them(tmp_path: Path) -> None:
    column_of("activation", [[70_000.0] * 6])(frame(10, [0, 1])).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(StoreError, match=r"row 20: 70000 is not finite as float16; set dtype: float32"):
        adopted(tmp_path, tmp_path / "store", dtype="float16")


def test_what_is_left_out_of_given_files_is_said(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for name, first in (("train/a", 0), ("val/a", 15), ("valid/b", 90)):
        (root / name).parent.mkdir(parents=True)
        frame(20, [0, 1], first).with_columns(klass=pl.lit("x")).write_parquet(root / f"{name}.parquet")
    (root / "train" / "._a.parquet").write_bytes(b"Mac OS X")
    (root / "train" / "c.PQ").touch()
    index_given(settings(root), tmp_path / "index.parquet")
    summary = read_json(tmp_path / "summary.json")
    assert {(entry["what"], entry["n_files"]) for entry in summary["left_out"]} == {
        ("._ files of macOS", 1),
        (".parquet files", 1),
        (".pq files", 1),
    }
    warnings = [entry["text"] for entry in summary["notices"] if entry["level"] == "warning"]
    assert len(warnings) == 2
    assert any("valid/b.parquet" in text for text in warnings)
    texts = [entry["text"] for entry in summary["notices"]]
    assert any("5 values of image_id are in train and in val" in text for text in texts)
    assert {"level": "note", "text": "columns that are not read: klass"} in summary["notices"]
    assert adopted(root, tmp_path / "store").splits == {"train": range(20), "val": range(20, 40)}


def test_vectors_without_val_are_said(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    frame(4, None).write_parquet(tmp_path / "mine" / "a.parquet")
    index_given(settings(tmp_path / "mine"), tmp_path / "index.parquet")
    (notice,) = read_json(tmp_path / "summary.json")["notices"]
    assert notice == {"level": "note", "text": "no picture is in val: nothing can be measured on it (splits: train)"}
