"""Exemplars are the pictures with the largest peaks, each once, ties in a fixed order."""

import numpy as np
import polars as pl

from visae.features.exemplars import top_exemplars


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


def test_equal_to_sorting_by_hand() -> None:
    random = np.random.default_rng(1)
    dense = random.random((20, 9, 5)).astype(np.float32) * (random.random((20, 9, 5)) < 0.3)
    dense[..., 2] = 0
    table = top_exemplars(as_codes(dense), 4)
    assert set(table["latent"]) == {0, 1, 3, 4}
    for latent in (0, 1, 3, 4):
        rows = table.filter(pl.col("latent") == latent)
        expected = np.argsort(-dense[..., latent].max(axis=1), kind="stable")[:4]
        assert rows["rank"].to_list() == [0, 1, 2, 3]
        assert rows["image_id"].to_list() == expected.tolist()
        for row in rows.iter_rows(named=True):
            values = dense[row["image_id"], :, latent]
            assert row["token"] == values.argmax()
            assert row["value"] == values.max()
            assert row["tokens"] == np.flatnonzero(values).tolist()
            np.testing.assert_array_equal(np.float32(row["values"]), values[values > 0])


def test_ties_go_to_the_lower_number_whatever_the_order_of_rows() -> None:
    dense = np.zeros((6, 4, 1), np.float32)
    dense[[1, 3, 4], 1:3, 0] = 1
    dense[5, 0, 0] = 2
    codes = as_codes(dense).collect()
    for seed in range(5):
        table = top_exemplars(codes.sample(fraction=1, shuffle=True, seed=seed).lazy(), 3)
        assert table["image_id"].to_list() == [5, 1, 3]
        assert table["token"].to_list() == [0, 1, 1]
