"""Statistics of latents equal plain NumPy's."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from visae.data.index import SCHEMA
from visae.errors import StoreError
from visae.features.codes import FORMAT
from visae.features.statistics import codes_by_latents, latent_statistics, write_statistics
from visae.files import write_json

N_IMAGES, N_PATCHES, WIDTH = 12, 16, 9
SPLITS = {"train": [0, 8], "val": [8, 12]}


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
    write_json(folder / "manifest.json", manifest | {"splits": SPLITS, "shards": shards})
    pl.DataFrame({"image_id": range(n_images)}, schema_overrides={"image_id": pl.Int32}).select(
        pl.col(name) if name == "image_id" else pl.lit(None, dtype=dtype).alias(name) for name, dtype in SCHEMA.items()
    ).write_parquet(folder / "index.parquet")
    write_json(folder / "config.json", {"width": width})
    return folder / "manifest.json"


def test_statistics_equal_numpy(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    write_statistics(manifest, tmp_path / "config.json", tmp_path / "index.parquet", tmp_path / "stats.parquet")
    stats = pl.read_parquet(tmp_path / "stats.parquet")
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
            assert row["mean"] is row["max"] is row["log10_frequency"] is row["max_train"] is None
            continue
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


def test_blocks_of_latents_give_the_same_as_one(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    splits = {name: (first, stop) for name, (first, stop) in SPLITS.items()}

    def blocks(rows: int) -> list[pl.DataFrame]:
        described = codes_by_latents(manifest, rows)
        return [latent_statistics(codes, latents, N_IMAGES * N_PATCHES, splits) for latents, codes in described]

    assert len(blocks(100)) > 2
    # Divisions in vectors and one by one may differ in the last bit.
    assert_frame_equal(pl.concat(blocks(100)), pl.concat(blocks(10**6)), rel_tol=1e-12, abs_tol=0)


def test_another_sae_or_index_is_refused(tmp_path: Path, dense: np.ndarray) -> None:
    manifest = write_codes(tmp_path, dense)
    other = write_codes(tmp_path / "other", dense[:11, :, :8]).parent
    with pytest.raises(StoreError, match="trained again"):
        write_statistics(manifest, other / "config.json", tmp_path / "index.parquet", tmp_path / "s.parquet")
    with pytest.raises(StoreError, match="different data sets"):
        write_statistics(manifest, tmp_path / "config.json", other / "index.parquet", tmp_path / "s.parquet")
    assert not (tmp_path / "s.parquet").exists()
