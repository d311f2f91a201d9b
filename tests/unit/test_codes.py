import numpy as np
import polars as pl
import pytest
import torch

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.features import codes
from visae.features.codes import encode_store, read_codes_manifest, scan_codes
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.relu import Relu
from visae.sae.topk import TopK

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
@pytest.mark.parametrize("group_rows", [1 << 20, 50])
def test_codes_are_the_non_zero_dense_codes_of_all_patches_in_order(store, tmp_path, variant, group_rows, monkeypatch):
    monkeypatch.setattr(codes, "_GROUP_ROWS", group_rows)
    monkeypatch.setattr(codes, "_BATCH_TOKENS", 20)
    sae, config = saved_sae(tmp_path / "sae", variant)
    record = encode_store(store, config, tmp_path / "codes", device="cpu")
    frame = scan_codes(tmp_path / "codes" / "manifest.json").collect()
    assert dict(frame.schema) == {
        "image_id": pl.Int32,
        "token": pl.Int16,
        "latent": pl.Int32,
        "value": pl.Float32,
    }
    assert frame.equals(frame.sort("image_id", "token", "latent"))
    dense = sae.encode(ActivationStore.open(store).read(range(23)).flatten(0, 1)).detach().view(23, 9, WIDTH)
    rebuilt = torch.zeros_like(dense)
    rebuilt[tuple(torch.from_numpy(frame[name].to_numpy().astype(np.int64)) for name in frame.columns[:3])] = (
        torch.from_numpy(frame["value"].to_numpy().copy())
    )
    assert torch.allclose(rebuilt, dense, atol=1e-5)
    assert frame["value"].min() > 0
    assert len(frame) == int((dense > 0).sum()) == record["rows"] == sum(shard["rows"] for shard in record["shards"])


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
