"""Sums by group are the same bits whatever the order of the rows: threads add in the order in which they finish."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from visae.features.image_scores import pooled
from visae.features.regions import rank_latents
from visae.features.statistics import kind_shares, latent_statistics

N_LATENTS, N_IMAGES, N_TOKENS = 7, 40, 60


@pytest.fixture(scope="module")
def codes() -> pl.DataFrame:
    """Codes whose sums depend on the order in float32: values of unlike size. Labels of latent 6 tie exactly."""
    random = np.random.default_rng(0)
    places = np.stack(np.meshgrid(range(N_IMAGES), range(N_TOKENS), range(N_LATENTS), indexing="ij"), -1)
    image_id, token, latent = places.reshape(-1, 3).T
    value = random.lognormal(0, 3, len(latent)).astype(np.float32)
    tied = latent == N_LATENTS - 1
    value[tied] = np.tile(value[tied][: tied.sum() // 2], 2)
    columns = {"image_id": image_id, "token": token, "latent": latent, "value": value}
    return pl.DataFrame(columns).cast({"image_id": pl.Int32, "token": pl.Int16, "latent": pl.Int32})


LABELS = pl.DataFrame(
    {"image_id": range(N_IMAGES), "label": [f"class {number * 2 // N_IMAGES}" for number in range(N_IMAGES)]},
    schema_overrides={"image_id": pl.Int32},
)
REGION = pl.DataFrame(
    {"image_id": image_id, "token": token, "inside": token % 3 == 0}
    for image_id in range(N_IMAGES)
    for token in range(N_TOKENS)
).cast({"image_id": pl.Int32, "token": pl.Int16})
SUMS: dict[str, Callable[[pl.LazyFrame], pl.DataFrame]] = {
    "statistics": lambda codes: latent_statistics(
        codes, range(N_LATENTS), N_IMAGES * N_TOKENS, {"train": (0, 30), "val": (30, 40)}, LABELS
    ),
    "kinds": kind_shares,
    "pooled": lambda codes: pooled(codes, "sum").sort("latent", "image_id").collect(engine="streaming"),
    "regions": lambda codes: rank_latents(codes, REGION),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_do_not_depend_on_the_order_of_rows(codes: pl.DataFrame, name: str) -> None:
    expected = SUMS[name](codes.lazy())
    for seed in range(8):
        shuffled = codes.sample(fraction=1.0, shuffle=True, seed=seed)
        assert_frame_equal(SUMS[name](shuffled.lazy()), expected, check_exact=True)


def test_these_codes_would_show_it(codes: pl.DataFrame) -> None:
    """The same sums in float32, and in float64 without rounding, do depend on the order."""
    values = codes.filter(latent=0)["value"].to_numpy()
    for kind in (np.float32, np.float64):
        shuffled = (np.random.default_rng(seed).permutation(values).astype(kind) for seed in range(8))
        assert len({np.cumsum(one)[-1] for one in shuffled}) > 1
