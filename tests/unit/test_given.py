"""A user's own vectors: arrays, Parquet of lists, a store from elsewhere; and what is refused."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from visae.activations.check import check_store
from visae.activations.given import adopt_activations, index_given, write_store
from visae.activations.schema import DTYPES
from visae.activations.store import ActivationStore
from visae.config.settings import ActivationsSettings
from visae.data.index import SCHEMA, read_index
from visae.errors import StoreError

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
        (lambda rows: rows.with_columns(activation=pl.col("image_id")), r"'activation' is int64; .* lists of floats"),
        (lambda rows: rows.with_columns(activation=pl.lit("a")), r"'activation' is .*string; .* lists of floats"),
        (lambda rows: rows.with_columns(token=pl.Series([0, 1] * 9 + [1, 0])), r"image_id 109: .*those of the first"),
        (
            lambda rows: rows.with_columns(activation=pl.Series([[1.0, 2.0]] * 19 + [[1.0]])),
            r"lists of floats, all of one length",
        ),
        (
            lambda rows: rows.with_columns(activation=pl.Series([[1.0, 2.0]] * 19 + [[1.0, float("nan")]])),
            r"image_id 9 has NaN or infinite activations",
        ),
        (
            lambda rows: rows.with_columns(activation=pl.Series([[1.0, 2.0]] * 19 + [None])),
            r"'activation' has 1 empty rows",
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


def test_folders_without_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no such folder"):
        adopted(tmp_path / "nothing", tmp_path / "store")
    (tmp_path / "val").mkdir()
    frame(4, None).write_parquet(tmp_path / "val" / "a.parquet")
    with pytest.raises(StoreError, match=r"train: no Parquet files"):
        adopted(tmp_path, tmp_path / "store")
