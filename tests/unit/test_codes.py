from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.features import codes, encoding
from visae.features.codes import read_codes_manifest, scan_codes
from visae.features.encoding import encode_store
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

D_MODEL, WIDTH, TOKENS = 10, 30, [-1, *range(9)]


def saved_sae(folder, variant, d_model=D_MODEL):
    generator = torch.Generator().manual_seed(6)
    sae = SparseAutoencoder(d_model, WIDTH, variant)
    for tensor in sae.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    sae.scale.fill_(1.7)
    return sae, save_sae(sae, folder)


@pytest.fixture
def store(tmp_path):
    activations = np.random.default_rng(7).standard_normal((23, len(TOKENS), D_MODEL)).astype(np.float32)
    splits = {"train": 14, "val": 6, "test": 3}
    return write_store(tmp_path / "store", activations, TOKENS, splits, grid=(3, 3), shards=3)


@pytest.mark.parametrize("variant", [TopK(4), Relu()], ids=lambda v: v.name)
@pytest.mark.parametrize("run_rows", [1 << 20, 100])
def test_codes_are_the_non_zero_dense_codes_of_all_tokens(store, tmp_path, variant, run_rows, monkeypatch):
    monkeypatch.setattr(codes, "RUN_ROWS", run_rows)
    monkeypatch.setattr(codes, "_GROUP_ROWS", 30)
    monkeypatch.setattr(encoding, "_BATCH_TOKENS", 20)
    sae, config = saved_sae(tmp_path / "sae", variant)
    record = encode_store(store, config, tmp_path / "codes", device="cpu")
    frame = scan_codes(tmp_path / "codes" / "manifest.json", kinds="all").collect()
    assert dict(frame.schema) == {
        "image_id": pl.Int32,
        "token": pl.Int16,
        "latent": pl.Int32,
        "value": pl.Float32,
    }
    dense = sae.encode(ActivationStore.open(store).read(range(23), "all").flatten(0, 1)).detach()
    rebuilt = torch.zeros_like(dense.view(23, 10, WIDTH))
    # The class token, -1, is the first of a picture.
    places = (frame["image_id"], frame["token"] + 1, frame["latent"])
    rebuilt[tuple(torch.from_numpy(place.to_numpy().astype(np.int64)) for place in places)] = torch.from_numpy(
        frame["value"].to_numpy().copy()
    )
    assert torch.allclose(rebuilt.view(-1, WIDTH), dense, atol=1e-5)
    assert frame["value"].min() > 0
    assert len(frame) == int((dense > 0).sum()) == record["rows"] == sum(shard["rows"] for shard in record["shards"])
    patches = scan_codes(tmp_path / "codes" / "manifest.json").collect()
    assert patches.sort(patches.columns).equals(frame.filter(pl.col("token") >= 0).sort(patches.columns))


def test_runs_are_sorted_by_latent_so_that_readers_of_one_skip_row_groups(store, tmp_path, monkeypatch):
    monkeypatch.setattr(codes, "_GROUP_ROWS", 30)
    _, config = saved_sae(tmp_path / "sae", TopK(4))
    record = encode_store(store, config, tmp_path / "codes", device="cpu")
    for shard in record["shards"]:
        path = tmp_path / "codes" / shard["file"]
        frame = pl.read_parquet(path)
        assert frame.equals(frame.sort("latent", "image_id", "token"))
        footer = pq.read_metadata(path)
        groups = [footer.row_group(number).column(2).statistics for number in range(footer.num_row_groups)]
        assert len(groups) == -(-shard["rows"] // 30) > 5
        assert all(before.max <= after.min for before, after in pairwise(groups))


def test_a_second_encoding_of_the_same_things_keeps_the_shards(store, tmp_path, monkeypatch):
    _, config = saved_sae(tmp_path / "sae", TopK(4))
    record = encode_store(store, config, tmp_path / "codes", device="cpu")
    first = scan_codes(tmp_path / "codes" / "manifest.json").collect()
    damaged, kept = (tmp_path / "codes" / shard["file"] for shard in record["shards"][:2])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = kept.stat().st_mtime_ns
    again = encode_store(store, config, tmp_path / "codes", device="cpu")
    assert kept.stat().st_mtime_ns == before
    assert again["shards"] == record["shards"]
    assert scan_codes(tmp_path / "codes" / "manifest.json").collect().equals(first)
    saved_sae(tmp_path / "sae", TopK(5))
    assert encode_store(store, config, tmp_path / "codes", device="cpu")["rows"] > record["rows"]
    assert kept.stat().st_mtime_ns > before


def test_the_manifest_says_what_is_there(store, tmp_path):
    _, config = saved_sae(tmp_path / "sae", TopK(4))
    record = encode_store(store, config, tmp_path / "codes", device="cpu")
    assert read_codes_manifest(tmp_path / "codes" / "manifest.json") == record
    assert (record["n_images"], record["n_tokens"], record["width"]) == (23, 23 * 9, WIDTH)
    assert record["splits"] == {"train": [0, 14], "val": [14, 20], "test": [20, 23]}
    assert [shard["file"] for shard in record["shards"]] == [f"shard-{number:05d}.parquet" for number in range(3)]
    assert set(record["provenance"]["inputs"]) == {"manifest.json", "config.json"}


def test_an_sae_of_another_dimension_is_refused(store, tmp_path):
    _, config = saved_sae(tmp_path / "sae", TopK(4), d_model=11)
    with pytest.raises(StoreError, match=r"of 10 dimensions, .* takes 11"):
        encode_store(store, config, tmp_path / "codes", device="cpu")
    assert not (tmp_path / "codes").exists()


def test_incomplete_codes_are_refused_by_name(store, tmp_path):
    manifest = tmp_path / "codes" / "manifest.json"
    with pytest.raises(StoreError, match="no such manifest"):
        scan_codes(manifest)
    with pytest.raises(StoreError, match="not the manifest of codes"):
        scan_codes(store)
    _, config = saved_sae(tmp_path / "sae", TopK(4))
    encode_store(store, config, manifest.parent, device="cpu")
    shard = manifest.with_name("shard-00001.parquet")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"shard-00001\.parquet is missing or not whole"):
        scan_codes(manifest)
