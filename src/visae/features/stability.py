"""Whether SAEs find the same directions again when only chance differs: decoder rows matched one to one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from visae.errors import ConfigError, ModelError
from visae.features.resampling import p_value
from visae.files import read_json, write_table
from visae.intervals import RESAMPLES, interval
from visae.sae.autoencoder import load_sae

logger = logging.getLogger(__name__)

FOUND_AGAIN = 0.7
"""A latent counts as found again where the cosine with its partner is above this."""

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Nearest:
    """Of each row of two dictionaries the nearest of the other: its number and the cosine with it."""

    partner: NDArray[np.int64]
    cosine: NDArray[np.float32]
    partner_back: NDArray[np.int64]
    cosine_back: NDArray[np.float32]

    @property
    def mutual(self) -> NDArray[np.bool_]:
        """Rows of the first whose nearest has them as its own nearest."""
        return self.partner_back[self.partner] == np.arange(len(self.partner))


def compare_seeds(
    saes: list[Path],
    output: Path | None = None,
    matching: str = "hungarian",
    draws: int = 19,
    seed: int = 0,
    same_settings: bool = False,
) -> None:
    """Match the decoder rows of every two SAEs, print how alike they are, and write one row a pair.

    Parameters
    ----------
    saes
        config.json of two or more SAEs on the same activations, such as the members of a sweep over `seed`.
    output
        Parquet file to write.
    matching
        `hungarian`: the one-to-one matching with the largest sum of cosines, whose memory grows with the square and
        whose time with about the cube of the width; `nearest`: bounds on it from nearest rows alone, in flat memory.
    draws
        Random dictionaries behind each null; every one costs another matching.
    seed
        Seed of those and of the interval.
    same_settings
        Compare only SAEs that differ in their seed alone, as their config.json says.

    Raises
    ------
    ConfigError
        If there is no pair to compare.
    ModelError
        If two SAEs are not of the same dimension.
    """
    if matching not in ("hungarian", "nearest"):
        raise ConfigError(f"--matching: {matching!r}: choose hungarian or nearest")
    pairs = [pair for pair in combinations(saes, 2) if not same_settings or _differ_in_seed_alone(*pair)]
    if not pairs:
        raise ConfigError("--saes: no two SAEs to compare" + (" that differ in their seed alone" * same_settings))
    rows = [
        {"first": str(one), "second": str(other)}
        | compare(directions(one), directions(other), matching, draws, seed, f"{one} and {other}")
        for one, other in pairs
    ]
    table = pl.DataFrame(rows)
    for row in table.iter_rows(named=True):
        exact = "" if row["mean"] is None else f"mean matched cosine {row['mean']:.3f} [{row['low']:.3f}, "
        exact += "" if row["mean"] is None else f"{row['high']:.3f}], {row['found_again']:.1%} above {FOUND_AGAIN}, "
        print(
            f"{row['first']}\n{row['second']}\n  {exact}between {row['lower_bound']:.3f} and {row['upper_bound']:.3f}"
        )
        print(f"  random dictionaries {row['null']:.3f}, with the same covariance {row['null_same_covariance']:.3f}")
    if output is not None:
        write_table(output, table)


def directions(config: Path) -> NDArray[np.float32]:
    """Read the decoder rows of an SAE in raw space, each of length 1 (0 where a row is 0)."""
    return _unit(load_sae(config).raw_rows().numpy())


def compare(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    matching: str,
    draws: int,
    seed: int,
    what: str = "the SAEs",
) -> dict[str, float | int | None]:
    """Compare two dictionaries of unit rows, (width, d) each; widths may differ.

    Returns
    -------
    dict
        width_first, width_second; mean cosine of matched rows with its interval over resampled latents (low, high)
        and the share of them above `FOUND_AGAIN` (found_again), all None with `nearest`; lower_bound and upper_bound
        of the mean; the share of rows of the narrower one whose nearest row has them as its own (mutual); null, what
        the second gives when its rows are random directions, and null_same_covariance, when they are drawn from a
        normal distribution with the mean and covariance of its rows: means over the draws; p, from the latter. Nulls
        are means of matched cosines, with `nearest` lower bounds of them.

    Raises
    ------
    ModelError
        If they are not of the same dimension.
    """
    if first.shape[1] != second.shape[1]:
        raise ModelError(f"{what} have rows of {first.shape[1]} and {second.shape[1]} dimensions: not the same layer")
    if len(first) > len(second):
        found = compare(second, first, matching, draws, seed, what)
        return found | {"width_first": len(first), "width_second": len(second)}
    near = nearest(first, second)
    random = np.random.default_rng(seed)
    lower = float(np.maximum(near.cosine[near.mutual], 0).sum() / len(first))
    # No matching gives a row more than its nearest, and none has more pairs than the narrower one has rows.
    upper = min(near.cosine.mean(), np.maximum(near.cosine_back, 0).sum() / len(first))
    matched = matched_cosines(first, second) if matching == "hungarian" else None
    observed = lower if matched is None else float(matched.mean())

    def null(draw: Callable[[], NDArray[np.float32]]) -> NDArray[np.float64]:
        return np.array([_mean_cosine(first, draw(), matching) for _ in range(draws)])

    isotropic = null(lambda: _unit(random.standard_normal(second.shape, dtype=np.float32)))
    shaped = null(lambda: _like(second, random))
    return {
        "width_first": len(first),
        "width_second": len(second),
        "mean": None if matched is None else observed,
        **_interval(matched, random),
        "found_again": None if matched is None else float((matched > FOUND_AGAIN).mean()),
        "lower_bound": lower,
        "upper_bound": float(upper),
        "mutual": float(near.mutual.mean()),
        "null": float(isotropic.mean()),
        "null_same_covariance": float(shaped.mean()),
        "p": float(p_value(observed, shaped)),
    }


def matched_cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of the one-to-one matching of rows with the largest sum, (smaller width,)."""
    cosines = first @ second.T
    logger.info("matching %d with %d rows", *cosines.shape)
    return cosines[linear_sum_assignment(cosines, maximize=True)].astype(np.float64)


def nearest(first: NDArray[np.float32], second: NDArray[np.float32]) -> Nearest:
    """Find nearest rows, a block of the first at a time."""
    partner, cosine = np.zeros(len(first), np.int64), np.zeros(len(first), np.float32)
    back, cosine_back = np.zeros(len(second), np.int64), np.full(len(second), -np.inf, np.float32)
    for start in range(0, len(first), _BLOCK_ROWS):
        block = first[start : start + _BLOCK_ROWS] @ second.T
        partner[start : start + len(block)] = block.argmax(axis=1)
        cosine[start : start + len(block)] = block.max(axis=1)
        best = block.max(axis=0)
        better = best > cosine_back
        back[better] = start + block.argmax(axis=0)[better]
        cosine_back[better] = best[better]
    return Nearest(partner, cosine, back, cosine_back)


def _mean_cosine(first: NDArray[np.float32], second: NDArray[np.float32], matching: str) -> float:
    if matching == "hungarian":
        return float(matched_cosines(first, second).mean())
    near = nearest(first, second)
    return float(np.maximum(near.cosine[near.mutual], 0).sum() / len(first))


def _interval(matched: NDArray[np.float64] | None, random: np.random.Generator) -> dict[str, float | None]:
    if matched is None:
        return {"low": None, "high": None}
    means = [matched[random.integers(len(matched), size=len(matched))].mean() for _ in range(RESAMPLES)]
    low, high = interval(np.array(means))
    return {"low": low, "high": high}


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


def _like(rows: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Unit rows drawn from a normal distribution with the mean and covariance of the given ones."""
    mean = rows.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(rows.T))
    spread = (axes * np.sqrt(np.maximum(variances, 0))).astype(np.float32)
    return _unit(random.standard_normal(rows.shape, dtype=np.float32) @ spread.T + mean)


def _differ_in_seed_alone(first: Path, second: Path) -> bool:
    settings = [read_json(path).get("settings", {}) for path in (first, second)]
    rest = [{key: value for key, value in own.items() if key != "seed"} for own in settings]
    return rest[0] == rest[1] and settings[0].get("seed") != settings[1].get("seed")
