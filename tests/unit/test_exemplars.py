"""Exemplars show the largest peaks, each bin of the range and random patches; nothing depends on the order of rows."""

import numpy as np
import polars as pl
import pytest

from visae.config.settings import FeatureSettings
from visae.features import exemplars
from visae.features.exemplars import find_exemplars

SETTINGS = FeatureSettings(exemplars=4, bins=3, exemplars_per_bin=2, random_exemplars=5)


def as_codes(dense: np.ndarray) -> pl.LazyFrame:
    image, token, latent = np.nonzero(dense)
    return pl.LazyFrame(
        {
            "image_id": image.astype(np.int32),
            "token": token.astype(np.int16),
            "latent": latent.astype(np.int32),
            "value": dense[image, token, latent],
        }
    )


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    """Codes of 20 pictures of 9 patches; latent 2 is never active."""
    random = np.random.default_rng(1)
    values = random.random((20, 9, 5)).astype(np.float32) * (random.random((20, 9, 5)) < 0.3)
    values[..., 2] = 0
    return values


def of(table: pl.DataFrame, latent: int, kind: str) -> pl.DataFrame:
    return table.filter((pl.col("latent") == latent) & (pl.col("kind") == kind))


def test_the_strongest_are_those_of_sorting_by_hand(dense: np.ndarray) -> None:
    table = find_exemplars(as_codes(dense), SETTINGS)
    assert set(table["latent"]) == {0, 1, 3, 4}
    for latent in (0, 1, 3, 4):
        rows = of(table, latent, "top")
        expected = np.argsort(-dense[..., latent].max(axis=1), kind="stable")[:4]
        assert rows["rank"].to_list() == [0, 1, 2, 3]
        assert rows["image_id"].to_list() == expected.tolist()
        for row in rows.iter_rows(named=True):
            values = dense[row["image_id"], :, latent]
            assert row["token"] == values.argmax()
            assert row["value"] == values.max()
            assert row["tokens"] == np.flatnonzero(values).tolist()
            np.testing.assert_array_equal(np.float32(row["values"]), values[values > 0])


def test_bins_are_thirds_of_the_peaks_and_random_patches_are_active(dense: np.ndarray) -> None:
    table = find_exemplars(as_codes(dense), SETTINGS)
    for latent in (0, 1, 3, 4):
        peaks = dense[..., latent].max(axis=1)
        thirds = np.array_split(np.sort(peaks[peaks > 0]), 3)
        rows = of(table, latent, "bin")
        assert rows["bin"].to_list() == [2, 2, 1, 1, 0, 0]
        # Where the number of pictures is no multiple of 3, one picture may go to either side of an edge.
        for row in rows.iter_rows(named=True):
            third = thirds[row["bin"]]
            assert row["low"] <= row["value"] == peaks[row["image_id"]] <= row["high"]
            assert abs(np.searchsorted(np.sort(peaks), row["low"]) - np.searchsorted(np.sort(peaks), third[0])) <= 1
            assert abs(np.searchsorted(np.sort(peaks), row["high"]) - np.searchsorted(np.sort(peaks), third[-1])) <= 1
        drawn = of(table, latent, "random")
        assert drawn["image_id"].n_unique() == len(drawn) == 5
        for row in drawn.iter_rows(named=True):
            assert row["value"] == dense[row["image_id"], row["token"], latent] > 0


def test_neither_the_order_of_rows_nor_the_size_of_pieces_matters(dense: np.ndarray, monkeypatch) -> None:
    codes = as_codes(dense).collect()
    # Fewer than there are: then what was kept says which later pairs can be left aside.
    monkeypatch.setattr(exemplars, "SAMPLED_PICTURES", 6)
    expected = find_exemplars(codes.lazy(), SETTINGS, seed=3)
    shuffled = codes.sample(fraction=1, shuffle=True, seed=5).lazy()
    assert find_exemplars(shuffled, SETTINGS, seed=3).equals(expected)
    # Small pieces cut through pictures, and what cannot become an exemplar is dropped many times on the way.
    monkeypatch.setattr(exemplars, "PIECE_ROWS", 7)
    assert find_exemplars(shuffled, SETTINGS, seed=3, piece_rows=7).equals(expected)
    other = find_exemplars(codes.lazy(), SETTINGS, seed=4)
    assert other.filter(kind="top").equals(expected.filter(kind="top"))
    assert not other.filter(kind="random").equals(expected.filter(kind="random"))


def test_every_active_patch_is_drawn_equally_often() -> None:
    values = np.zeros((40, 6, 300), np.float32)
    values += 1 + np.arange(6)[:, None]
    once = FeatureSettings(exemplars=1, bins=1, exemplars_per_bin=1, random_exemplars=1)
    drawn = find_exemplars(as_codes(values), once)
    # Of 300 draws among 6 patches 50 fall on each, give or take 6.5; a picture is drawn 7.5 times.
    counts = np.bincount(drawn.filter(kind="random")["token"], minlength=6)
    assert abs(counts - 50).max() < 26
    for kind in ("random", "bin"):
        assert np.bincount(drawn.filter(kind=kind)["image_id"], minlength=40).max() < 22
    assert drawn.filter(kind="bin")["token"].unique().to_list() == [5]


def test_bins_of_a_common_latent_come_from_a_sample_of_its_pictures(monkeypatch) -> None:
    values = np.zeros((400, 1, 1), np.float32)
    values[:, 0, 0] = np.random.default_rng(0).permutation(400) + 1
    table = find_exemplars(as_codes(values), FeatureSettings(bins=4, exemplars_per_bin=3))
    lows = table.filter(kind="bin").unique("bin").sort("bin")["low"]
    assert abs(lows.to_numpy() - [1, 100, 200, 300]).max() < 70
    assert of(table, 0, "top")["value"].to_list() == list(range(400, 384, -1))


def test_ties_go_to_the_lower_number() -> None:
    values = np.zeros((6, 4, 1), np.float32)
    values[[1, 3, 4], 1:3, 0] = 1
    values[5, 0, 0] = 2
    table = of(find_exemplars(as_codes(values), FeatureSettings(exemplars=3)), 0, "top")
    assert table["image_id"].to_list() == [5, 1, 3]
    assert table["token"].to_list() == [0, 1, 1]


def test_an_exemplar_of_class_tokens_is_the_picture(dense: np.ndarray) -> None:
    codes = as_codes(dense[:, :1])
    pictures = find_exemplars(codes.with_columns(pl.lit(-1, pl.Int16).alias("token")), SETTINGS)
    assert set(pictures["token"]) == {-1}
    assert pictures["tokens"].to_list() == [[-1]] * len(pictures)
    for latent in (0, 1, 3, 4):
        peaks = dense[:, 0, latent]
        expected = np.argsort(-peaks, kind="stable")[: min(4, (peaks > 0).sum())]
        assert of(pictures, latent, "top")["image_id"].to_list() == expected.tolist()


def test_a_latent_of_one_picture_has_one_bin() -> None:
    values = np.zeros((3, 2, 1), np.float32)
    values[1, 0, 0] = 2
    table = find_exemplars(as_codes(values), SETTINGS)
    assert table.select("kind", "bin", "image_id").rows() == [("top", None, 1), ("bin", 0, 1), ("random", None, 1)]
