"""Statistics of latents equal plain NumPy's."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from visae.config.settings import FeatureSettings
from visae.data.index import SCHEMA
from visae.errors import StoreError
from visae.features.blocks import codes_by_latents
from visae.features.codes import FORMAT
from visae.features.neighbours import nearest_by_coactivation
from visae.features.statistics import latent_statistics, write_statistics
from visae.files import read_json, write_json
from visae.sae import SparseAutoencoder, load_sae, save_sae
from visae.sae.variants.topk import TopK

N_IMAGES, N_PATCHES, WIDTH = 12, 16, 9
SPLITS = {"train": [0, 8], "val": [8, 12]}
NAMES = ["cat", "dog", "owl"]
LABELS = NAMES * (N_IMAGES // 3)


@pytest.fixture
def dense() -> np.ndarray:
    """Codes (images, patches, latents): latent 3 dead, latent 5 everywhere, latent 7 only in val."""
    random = np.random.default_rng(0)
    codes = random.gamma(2, size=(N_IMAGES, N_PATCHES, WIDTH)).astype(np.float32)
    codes *= random.random(codes.shape) < 0.08
    codes[..., 3] = 0
    codes[..., 5] = random.random(codes.shape[:2]) + 0.5
    codes[:8, :, 7] = 0
    codes[9, 4, 7] = 2.5
    return codes


def write_codes(folder: Path, dense: np.ndarray) -> Path:
    image, token, latent = np.nonzero(dense)
    table = pl.DataFrame(
        {
            "image_id": image.astype(np.int32),
            "token": token.astype(np.int16),
            "latent": latent.astype(np.int32),
            "value": dense[image, token, latent],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, part in enumerate((table[:300], table[300:])):
        path = folder / f"shard-{number}.parquet"
        part.write_parquet(path)
        shards.append({"file": path.name, "rows": part.height, "bytes": path.stat().st_size})
    n_images, n_patches, width = dense.shape
    manifest = {"format": FORMAT, "n_images": n_images, "n_tokens": n_images * n_patches, "width": width}
    write_json(folder / "manifest.json", manifest | {"splits": SPLITS, "shards": shards, "rows": len(table)})
    known = {"image_id": range(n_images), "label": [n % 3 for n in range(n_images)], "label_name": LABELS[:n_images]}
    known["label_name"][-1] = None
    pl.DataFrame(
        known | {name: [None] * n_images for name in SCHEMA if name not in known}, schema=SCHEMA
    ).write_parquet(folder / "index.parquet")
    write_json(folder / "summary.json", {"classes": [{"id": n + 1, "name": name} for n, name in enumerate(NAMES)]})
    generator = torch.Generator().manual_seed(1)
    sae = SparseAutoencoder(5, width, TopK(2))
    for tensor in sae.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    save_sae(sae, folder)
    return folder / "manifest.json"


def entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def written(manifest: Path, patch_labels: Path | None = None) -> pl.DataFrame:
    folder = manifest.parent
    paths = (manifest, folder / "config.json", folder / "index.parquet", folder / "stats.parquet")
    write_statistics(*paths, FeatureSettings(), patch_labels=patch_labels)
    return pl.read_parquet(folder / "stats.parquet")


def test_statistics_equal_numpy(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    stats = written(manifest)
    assert stats["latent"].to_list() == list(range(WIDTH))
    for row in stats.iter_rows(named=True):
        values = dense[..., row["latent"]]
        active = values[values > 0]
        assert row["count"] == len(active)
        assert row["images"] == (values > 0).any(axis=1).sum()
        assert row["dead"] == (len(active) == 0)
        assert row["dense"] == (len(active) / values.size > 0.1)
        assert row["frequency"] == pytest.approx(len(active) / values.size)
        if not len(active):
            for name in ("mean", "max", "log10_frequency", "max_train", "spatial_entropy", "patch_share", "top_labels"):
                assert row[name] is None, name
            continue
        assert row["spatial_entropy"] == pytest.approx(entropy((values > 0).sum(axis=0)), abs=1e-6)
        by_label = np.array([values[:-1][number::3].sum() for number in range(3)])
        assert row["label_entropy"] == pytest.approx(entropy(by_label), abs=1e-5)
        order = [number for number in np.argsort(-by_label) if by_label[number] > 0]
        assert row["top_labels"] == [NAMES[number] for number in order]
        assert row["top_label_shares"] == pytest.approx(by_label[order] / by_label.sum(), rel=1e-5)
        assert (row["patch_share"], row["class_share"], row["register_share"]) == (1, 0, 0)
        assert row["log10_frequency"] == pytest.approx(np.log10(len(active) / values.size))
        assert row["mean"] == pytest.approx(active.mean(), rel=1e-5)
        assert row["max"] == active.max()
        assert row["standard_deviation"] == pytest.approx(active.std(), rel=1e-4, abs=1e-6)
        for percent in (50, 90, 99):
            assert row[f"quantile_{percent}"] == pytest.approx(np.percentile(active, percent), rel=1e-5)
        for split, (first, stop) in SPLITS.items():
            largest = values[first:stop].max()
            assert row[f"max_{split}"] == (largest if largest > 0 else None)
    assert stats["dead"].to_list() == [latent == 3 for latent in range(WIDTH)]
    assert stats["dense"][5]
    assert stats["max_train"][7] is None


def test_neighbours_and_the_bias_equal_numpy(tmp_path: Path, dense: np.ndarray) -> None:
    stats = written(write_codes(tmp_path, dense))
    sae = load_sae(tmp_path / "config.json")
    rows, bias = sae.decoder_weight.numpy(), (sae.mean + sae.scale * sae.decoder_bias).numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert stats["bias_alignment"].to_numpy() == pytest.approx(unit @ bias / np.linalg.norm(bias), abs=1e-6)
    active = (dense.reshape(-1, WIDTH) > 0).astype(float)
    counts = active.sum(axis=0)
    together = (active.T @ active) / np.sqrt(np.outer(np.maximum(counts, 1), np.maximum(counts, 1)))
    for name, values, expected in (
        ("nearest_by_decoder", "decoder_cosines", unit @ unit.T),
        ("nearest_by_coactivation", "coactivations", together),
    ):
        for row in stats.iter_rows(named=True):
            similar = np.delete(expected[row["latent"]], row["latent"])
            largest = np.sort(similar)[::-1][:5]
            if name == "nearest_by_coactivation":
                largest = largest[largest > 0]
            assert row[values] == pytest.approx(largest, abs=1e-6)
            assert expected[row["latent"], row[name]] == pytest.approx(largest, abs=1e-6)
    assert stats["nearest_by_coactivation"][3].to_list() == []


def test_coactivation_of_much_data_is_counted_on_pictures_all_over_it(tmp_path: Path, dense: np.ndarray) -> None:
    # Two latents meet in the first and the last picture alone.
    dense[:] = 0
    dense[0, :, [0, 1]] = dense[-1, :, [0, 1]] = 1
    dense[1:-1, :, 0] = 1
    manifest = write_codes(tmp_path, dense)
    assert nearest_by_coactivation(manifest)["coactivations"][0].to_list() == pytest.approx([np.sqrt(2 / 12)])
    assert nearest_by_coactivation(manifest, pairs=50)["coactivations"][0].to_list() == pytest.approx([1.0])


def test_class_tokens_and_registers_count_for_their_share_alone(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    before = written(manifest)
    tokens = [-1] * 5 + [-2] * 3
    more = {"image_id": range(8), "token": tokens, "latent": [0] * 8, "value": [9.0] * 8}
    path, record = tmp_path / "shard-1.parquet", read_json(manifest)
    pl.concat([pl.read_parquet(path), pl.DataFrame(more, schema=pl.read_parquet_schema(path))]).write_parquet(path)
    record["shards"][1] = {"file": path.name, "rows": record["shards"][1]["rows"] + 8, "bytes": path.stat().st_size}
    write_json(manifest, record)
    after = written(manifest)
    shares = ["patch_share", "class_share", "register_share"]
    assert_frame_equal(after.drop(shares), before.drop(shares))
    assert_frame_equal(after[1:], before[1:])
    count = before["count"][0]
    assert after[shares].row(0) == pytest.approx(np.array([count, 5, 3]) / (count + 8))


def test_labels_of_patches_count_where_there_are_any(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    image, token = np.divmod(np.arange(N_IMAGES * N_PATCHES), N_PATCHES)
    label, purity = np.random.default_rng(2).integers(0, 4, len(image)), np.where(token == 5, 0.6, 0.95)
    pl.DataFrame(
        {"image_id": image, "token": token, "label": label, "purity": purity},
        schema={"image_id": pl.Int32, "token": pl.Int16, "label": pl.Int16, "purity": pl.Float32},
    ).write_parquet(tmp_path / "labels.parquet")
    stats = written(manifest, tmp_path / "labels.parquet")
    values = dense.reshape(-1, WIDTH)
    for row in stats.iter_rows(named=True):
        sums = np.array([values[(label == number) & (token != 5), row["latent"]].sum() for number in (1, 2, 3)])
        if not sums.any():
            assert row["top_labels"] is None
            continue
        order = [number for number in np.argsort(-sums) if sums[number] > 0]
        assert row["top_labels"] == [NAMES[number] for number in order]
        assert row["label_entropy"] == pytest.approx(entropy(sums), abs=1e-5)


def test_blocks_of_latents_give_the_same_as_one(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    splits = {name: (first, stop) for name, (first, stop) in SPLITS.items()}

    def blocks(rows: int) -> list[pl.DataFrame]:
        described = codes_by_latents(manifest, rows)
        return [latent_statistics(codes, latents, N_IMAGES * N_PATCHES, splits) for latents, codes in described]

    ranges = [latents for latents, _ in codes_by_latents(manifest, 100)]
    assert [latent for latents in ranges for latent in latents] == list(range(WIDTH))
    sizes = [int((dense[..., latents] > 0).sum()) for latents in ranges]
    assert len(sizes) > 2
    assert all(size <= 100 or len(latents) == 1 for size, latents in zip(sizes, ranges, strict=True))
    # Divisions in vectors and one by one may differ in the last bit.
    assert_frame_equal(pl.concat(blocks(100)), pl.concat(blocks(10**6)), rel_tol=1e-12, abs_tol=0)


def test_another_sae_or_index_is_refused(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    other = write_codes(tmp_path / "other", dense[:11, :, :8]).parent
    with pytest.raises(StoreError, match="trained again"):
        write_statistics(
            manifest, other / "config.json", tmp_path / "index.parquet", tmp_path / "s.parquet", FeatureSettings()
        )
    with pytest.raises(StoreError, match="different data sets"):
        write_statistics(
            manifest, tmp_path / "config.json", other / "index.parquet", tmp_path / "s.parquet", FeatureSettings()
        )
    assert not (tmp_path / "s.parquet").exists()
