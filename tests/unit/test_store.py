import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visae.activations.check import check_store
from visae.activations.given import write_store
from visae.activations.manifest import image_ranges
from visae.activations.reader import ShuffledReader
from visae.activations.schema import DTYPES, ShardHeader, ShardRecord, TokenChoice, shard_name
from visae.activations.store import ActivationStore, scan
from visae.activations.writer import BackgroundWriter, ShardWriter
from visae.errors import StoreError
from visae.vision.hook_points import HookPoint

TOKENS = [-1, *range(9)]


def activations(n_images: int, d_model: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_images, len(TOKENS), d_model)).astype(np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    values = activations(2500)
    folder = tmp_path_factory.mktemp("store")
    return write_store(folder, values, TOKENS, {"train": 2000, "val": 500}, shards=2), values


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    n_images, d_model = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 33))
    n_prefix, n_patches = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 300))
    dtype = data.draw(st.sampled_from(list(DTYPES)))
    tokens = [*range(-1, -1 - n_prefix, -1), *range(n_patches)]
    values = torch.randn(n_images, len(tokens), d_model, generator=torch.Generator().manual_seed(1)).to(DTYPES[dtype])
    train = data.draw(st.integers(0, n_images))
    folder = tmp_path_factory.mktemp("store")
    shards = data.draw(st.integers(1, 5))
    splits = {name: count for name, count in {"train": train, "val": n_images - train}.items() if count}
    store = ActivationStore.open(write_store(folder, values, tokens, splits, dtype=dtype, shards=shards))
    start = data.draw(st.integers(0, n_images))
    images = range(start, data.draw(st.integers(start, n_images)))
    expected = values[images.start : images.stop].float()
    assert torch.equal(store.read(images, "all"), expected)
    assert torch.equal(store.read(images), expected[:, n_prefix:])
    scanned = scan(store.folder / "manifest.json").collect()
    assert np.array_equal(scanned["activation"].to_numpy(), values.float().flatten(0, 1).numpy())
    assert scanned["token"].to_list() == tokens * n_images
    assert scanned["image_id"].to_list() == np.repeat(np.arange(n_images), len(tokens)).tolist()
    assert check_store(folder) == []


def test_polars_sees_the_same_rows(stored: tuple[Path, np.ndarray]) -> None:
    path, values = stored
    row = scan(path).filter((pl.col("image_id") == 1777) & (pl.col("token") == 3)).collect()
    assert np.array_equal(row["activation"].to_numpy()[0], values[1777, 4])


def test_the_column_is_plain_fixed_size_binary(stored: tuple[Path, np.ndarray]) -> None:
    path, _ = stored
    file = pq.ParquetFile(path.parent / shard_name(0))
    column = file.metadata.row_group(0).column(2)
    assert str(file.schema_arrow.field("activation").type) == "fixed_size_binary[32]"
    assert (column.compression, column.has_dictionary_page, column.is_stats_set) == ("UNCOMPRESSED", False, False)


def test_iterating_walks_a_split_in_order(stored: tuple[Path, np.ndarray]) -> None:
    path, values = stored
    store = ActivationStore.open(path)
    ids, rows = zip(*store.iterate("val", 64, "class"), strict=True)
    assert np.concatenate(ids).tolist() == list(range(2000, 2500))
    assert np.array_equal(torch.cat(rows).numpy(), values[2000:, :1])


@pytest.mark.parametrize("pool_bytes", [1 << 30, 32 * 30_000, 32 * 5000])
def test_an_epoch_has_each_row_exactly_once(stored: tuple[Path, np.ndarray], pool_bytes: int) -> None:
    path, values = stored
    store = ActivationStore.open(path)
    reader = ShuffledReader([store, store], "train", 900, seed=3, pool_bytes=pool_bytes)
    assert reader.n_tokens == 2 * 2000 * 9
    epoch = torch.cat(list(itertools.islice(reader.batches(), 40)))
    expected = np.repeat(values[:2000, 1:].reshape(-1, 8), 2, axis=0)
    assert np.array_equal(np.sort(epoch.numpy(), axis=0), np.sort(expected, axis=0))


def test_any_batch_is_found_without_the_ones_before(stored: tuple[Path, np.ndarray]) -> None:
    path, _ = stored
    store = ActivationStore.open(path)

    def reader(seed: int = 3) -> ShuffledReader:
        return ShuffledReader([store], "train", 700, seed, pool_bytes=32 * 5000)

    batches = list(itertools.islice(reader().batches(), 60))
    for start in (0, 1, 7, 26, 59):
        assert torch.equal(next(reader().batches(start)), batches[start])
    assert not torch.equal(next(reader(seed=4).batches()), batches[0])


def test_a_batch_mixes_pictures_like_a_uniform_draw(tmp_path: Path) -> None:
    n_images, n_patches, batch = 500, 256, 4096
    values = np.tile(np.arange(n_images, dtype=np.float32)[:, None, None], (1, n_patches, 2))
    store = ActivationStore.open(write_store(tmp_path, values, list(range(n_patches)), {"train": n_images}))
    reader = ShuffledReader([store], "train", batch, seed=0)
    uniform = np.random.default_rng(0).integers(n_images, size=(20, batch))
    drawn = [batch[:, 0].numpy().astype(int) for batch in itertools.islice(reader.batches(), 20)]

    def entropy(pictures: np.ndarray) -> float:
        share = np.bincount(pictures, minlength=n_images) / len(pictures)
        return float(-(share[share > 0] * np.log(share[share > 0])).sum())

    assert np.mean([entropy(d) for d in drawn]) == pytest.approx(np.mean([entropy(u) for u in uniform]), rel=0.02)


def header(n_images: int, dtype: str = "float16") -> ShardHeader:
    return ShardHeader("made-from", 3, "residual", 8, dtype, TokenChoice(tuple(TOKENS)), (3, 3), 10, n_images)


def test_a_failed_shard_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0)
    with pytest.raises(StoreError, match="5 pictures came, 9 were announced"), ShardWriter(path, header(9)) as writer:
        writer.add(torch.zeros(5, len(TOKENS), 8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_value_that_cannot_be_stored_names_the_picture(tmp_path: Path, value: float) -> None:
    values = torch.zeros(9, len(TOKENS), 8)
    values[4, 2, 1] = value
    writer = ShardWriter(tmp_path / shard_name(0), header(9))

    def write() -> None:
        with writer:
            background = BackgroundWriter({HookPoint(3): writer})
            try:
                background.add({HookPoint(3): values})
            finally:
                background.close()

    with pytest.raises(StoreError, match="image_id 14 has NaN or infinite activations at layer 3 as float16"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_shard_made_from_other_things_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0)
    with ShardWriter(path, header(2)) as writer:
        writer.add(torch.zeros(2, len(TOKENS), 8))
    assert ShardRecord.read_whole(path, "made-from") is not None
    assert ShardRecord.read_whole(path, "another") is None
    side = path.with_suffix(".json")
    whole = side.read_text()
    for text in ("{", "[]", "{}", whole.replace("footer_sha256", "of_another_version")):
        side.write_text(text)
        assert ShardRecord.read_whole(path, "made-from") is None
    side.write_text(whole)
    path.write_bytes(path.read_bytes()[:-1])
    assert ShardRecord.read_whole(path, "made-from") is None


def test_a_missing_or_cut_shard_is_named(tmp_path: Path) -> None:
    path = write_store(tmp_path, activations(20), TOKENS, {"train": 20})
    shard = tmp_path / shard_name(0)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(StoreError, match=rf"shard-00000.parquet has {len(whole) - 100} bytes, not {len(whole)}"):
        ActivationStore.open(path)
    shard.unlink()
    with pytest.raises(StoreError, match=r"shard-00000\.parquet is missing"):
        ActivationStore.open(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(StoreError, match="not a shard of an activation store"):
        ShardHeader.read(tmp_path / "other.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match="not the manifest of an activation store"):
        ActivationStore.open(tmp_path / "manifest.json")


def test_stores_of_unlike_width_are_refused(tmp_path: Path) -> None:
    stores = [
        ActivationStore.open(write_store(tmp_path / str(d), activations(4, d), TOKENS, {"train": 4})) for d in (8, 9)
    ]
    with pytest.raises(StoreError, match=r"unlike d_model cannot be read as one: .*: 8, .*: 9"):
        ShuffledReader(stores, "train", 4, 0)


def test_a_split_that_is_not_there_is_named(stored: tuple[Path, np.ndarray]) -> None:
    store = ActivationStore.open(stored[0])
    with pytest.raises(StoreError, match="no split 'dev'; it has train, val"):
        store.image_ids("dev")


def test_shards_cover_all_pictures_without_empty_ones() -> None:
    assert image_ranges(3, 5) == [(1, 0, 1), (3, 1, 2), (4, 2, 3)]
    assert image_ranges(10, 3) == [(0, 0, 3), (1, 3, 6), (2, 6, 10)]
