"""Pictures that show each latent's whole range: the strongest, a sample of each quantile bin, random active patches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import FeatureSettings
from visae.features.blocks import read_matching_manifest
from visae.features.codes import scan_codes
from visae.files import write_table

KINDS = ("top", "bin", "random")
"""How an exemplar was found, in the order in which they are stored and drawn."""

SAMPLED_PICTURES = 64
"""Pictures a latent from which its bins are made: exact for a latent active in no more, else a random sample."""

PIECE_ROWS = 1_000_000
"""Codes looked at together."""

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "latent": pl.Int32,
    "kind": pl.String,
    "bin": pl.Int16,
    "low": pl.Float32,
    "high": pl.Float32,
    "rank": pl.Int16,
    "image_id": pl.Int32,
    "token": pl.Int16,
    "value": pl.Float32,
    "tokens": pl.List(pl.Int16),
    "values": pl.List(pl.Float32),
}


def find_exemplars(
    codes: pl.LazyFrame, settings: FeatureSettings, seed: int = 0, piece_rows: int = PIECE_ROWS
) -> pl.DataFrame:
    """Return the pictures that show each latent, in two passes over the codes, in whatever order they lie.

    Memory grows with the number of latents and of exemplars, not with the codes.

    Parameters
    ----------
    codes
        image_id, token, latent, value: non-zero codes of the tokens that the SAE is of. Of a class token's latents the
        exemplar is the picture: token is -1.
    settings
        Section `features`: how many of each kind.
    seed
        Seed of the sampling. Whether a picture or patch is drawn depends on the seed and its own numbers alone.
    piece_rows
        Codes looked at together.

    Returns
    -------
    DataFrame
        Sorted by latent, kind, bin (the strongest first) and rank; a picture stands once in each kind.

        - kind `top`: the pictures with the largest patch values, the largest first; of equal ones the lower image_id.
        - kind `bin`: the pictures in which the latent is active, in order of their largest value, are cut into bins of
          equally many (bin 0 is the weakest); of each, a random sample. low and high are the least and the
          largest of these values in the bin.
        - kind `random`: patches drawn at random among all on which the latent is active, at most one a picture.

        token and value are the strongest patch (of equal ones the lower token), for kind `random` the drawn one;
        tokens and values are every active patch of that latent in that picture.
    """
    pieces = codes.collect_batches(chunk_size=piece_rows, maintain_order=False)
    chosen = _chosen(_candidates(pieces, settings, seed), settings)
    patches = _patches(codes, chosen.select("latent", "image_id").unique(), seed)
    drawn = pl.col("kind") == "random"
    return (
        chosen.join(patches, on=["latent", "image_id"])
        .with_columns(
            pl.when(drawn).then("drawn_token").otherwise("peak_token").alias("token"),
            pl.when(drawn).then("drawn_value").otherwise("peak_value").alias("value"),
        )
        .sort("latent", pl.col("kind").cast(pl.Enum(KINDS)), "bin", "rank", descending=[False, False, True, False])
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
    )


def write_exemplars(
    codes_manifest: Path, index_path: Path, output: Path, settings: FeatureSettings, seed: int = 0
) -> None:
    """Write exemplars.parquet: `find_exemplars` of every latent that is ever active.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    index_path
        Index of the data set that they describe.
    output
        Parquet file to write.
    settings
        Section `features`.
    seed
        The global seed; the section's own is added.
    """
    read_matching_manifest(codes_manifest, index_path)
    table = find_exemplars(scan_codes(codes_manifest), settings, settings.seed + seed)
    write_table(output, table)


def _candidates(pieces: Iterable[pl.DataFrame], settings: FeatureSettings, seed: int) -> pl.DataFrame:
    """Return latent, image_id, peak, patch_draw, picture_draw of every pair that may become an exemplar.

    Pairs of latent and picture are gathered until they outnumber those that were kept, then all but the possible
    exemplars are dropped. Those kept say what a later pair has to reach, so that most are dropped at once.
    """
    kept = pl.DataFrame(
        schema={
            "latent": pl.Int32,
            "image_id": pl.Int32,
            "peak": pl.Float32,
            "patch_draw": pl.UInt64,
            "picture_draw": pl.UInt64,
        }
    )
    limits = _limits(kept, settings)
    waiting: list[pl.DataFrame] = []
    for piece in pieces:
        pairs = _with_picture_draws(_pairs(_with_draws(piece, seed)), seed)
        waiting.append(_within(pairs, limits))
        if sum(map(len, waiting)) > max(len(kept), PIECE_ROWS):
            kept, waiting = _possible(pl.concat([kept, *waiting]), settings), []
            limits = _limits(kept, settings)
    return _possible(pl.concat([kept, *waiting]), settings)


def _limits(kept: pl.DataFrame, settings: FeatureSettings) -> pl.DataFrame:
    """Return what a pair has to reach to be an exemplar of its latent; null where every pair still is one."""

    def full(size: int, limit: pl.Expr) -> pl.Expr:
        return pl.when(pl.len() >= size).then(limit)

    return kept.group_by("latent").agg(
        full(settings.exemplars, pl.col("peak").top_k(settings.exemplars).min()).alias("least_peak"),
        full(settings.random_exemplars, pl.col("patch_draw").bottom_k(settings.random_exemplars).max()).alias(
            "most_patch_draw"
        ),
        full(SAMPLED_PICTURES, pl.col("picture_draw").bottom_k(SAMPLED_PICTURES).max()).alias("most_picture_draw"),
    )


def _within(pairs: pl.DataFrame, limits: pl.DataFrame) -> pl.DataFrame:
    """Drop pairs that reach none of the limits of their latent."""
    reached = (
        (pl.col("peak") >= pl.col("least_peak")).fill_null(True)
        | (pl.col("patch_draw") <= pl.col("most_patch_draw")).fill_null(True)
        | (pl.col("picture_draw") <= pl.col("most_picture_draw")).fill_null(True)
    )
    return pairs.join(limits, on="latent", how="left").filter(reached).select(pairs.columns)


def _pairs(codes: pl.DataFrame) -> pl.DataFrame:
    """Return the largest value and the least draw of each pair of latent and picture."""
    return codes.group_by("latent", "image_id").agg(
        pl.col("value").max().alias("peak"), pl.col("draw").min().alias("patch_draw")
    )


def _possible(pairs: pl.DataFrame, settings: FeatureSettings) -> pl.DataFrame:
    """Drop all pairs that cannot become exemplars, whatever comes after them."""
    # A picture whose codes lie in two pieces has two pairs.
    merged = pairs.group_by("latent", "image_id").agg(
        pl.col("peak").max(), pl.col("patch_draw").min(), pl.col("picture_draw").first()
    )
    return merged.filter(
        (_place("peak", "image_id", descending=[True, False]) < settings.exemplars)
        | (_place("patch_draw") < settings.random_exemplars)
        | (_place("picture_draw") < SAMPLED_PICTURES)
    )


def _chosen(candidates: pl.DataFrame, settings: FeatureSettings) -> pl.DataFrame:
    """Return latent, kind, bin, low, high, rank, image_id of every exemplar."""
    columns = ["latent", "kind", "bin", "low", "high", "rank", "image_id"]
    none = [pl.lit(None, pl.Int16).alias("bin"), *(pl.lit(None, pl.Float32).alias(name) for name in ("low", "high"))]
    top = candidates.with_columns(rank=_place("peak", "image_id", descending=[True, False]), kind=pl.lit("top"))
    random = candidates.with_columns(rank=_place("patch_draw"), kind=pl.lit("random"))
    in_bin = ["latent", "bin"]
    binned = (
        candidates.filter(_place("picture_draw") < SAMPLED_PICTURES)
        .with_columns(bin=(_place("peak", "image_id") * settings.bins // pl.len().over("latent")).cast(pl.Int16))
        .with_columns(low=pl.col("peak").min().over(in_bin), high=pl.col("peak").max().over(in_bin), kind=pl.lit("bin"))
        .filter(pl.col("picture_draw").rank("ordinal").over(in_bin) <= settings.exemplars_per_bin)
        .sort("peak", "image_id", descending=[True, False])
        .with_columns(rank=pl.int_range(pl.len(), dtype=pl.UInt32).over(in_bin))
    )
    return pl.concat(
        [
            top.filter(pl.col("rank") < settings.exemplars).with_columns(none).select(columns),
            binned.select(columns),
            random.filter(pl.col("rank") < settings.random_exemplars).with_columns(none).select(columns),
        ]
    )


def _patches(codes: pl.LazyFrame, pairs: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return all active patches of pairs of latent and picture as lists, with the strongest and the drawn one."""
    found = codes.join(pairs.lazy(), on=["latent", "image_id"], how="semi").collect(engine="streaming")
    at_peak, at_draw = pl.col("value").arg_max(), pl.col("draw").arg_min()
    return (
        _with_draws(found, seed)
        .sort("latent", "image_id", "token")
        .group_by("latent", "image_id", maintain_order=True)
        .agg(
            pl.col("token").alias("tokens"),
            pl.col("value").alias("values"),
            pl.col("token").get(at_peak).alias("peak_token"),
            pl.col("value").get(at_peak).alias("peak_value"),
            pl.col("token").get(at_draw).alias("drawn_token"),
            pl.col("value").get(at_draw).alias("drawn_value"),
        )
    )


def _place(*columns: str, descending: list[bool] | bool = False) -> pl.Expr:
    """Place of each row among those of its latent, from 0, in the order of some columns."""
    # The inverse of the order that sorts them.
    return pl.int_range(pl.len()).sort_by(columns, descending=descending).arg_sort().over("latent")


def _with_draws(codes: pl.DataFrame, seed: int) -> pl.DataFrame:
    numbers = (codes[name].to_numpy() for name in ("latent", "image_id", "token"))
    return codes.with_columns(pl.Series("draw", _draws(seed, *numbers), dtype=pl.UInt64))


def _with_picture_draws(pairs: pl.DataFrame, seed: int) -> pl.DataFrame:
    numbers = (pairs[name].to_numpy() for name in ("latent", "image_id"))
    return pairs.with_columns(pl.Series("picture_draw", _draws(seed, *numbers), dtype=pl.UInt64))


def _draws(seed: int, *numbers: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Turn each row of numbers into a random one, the same whatever else is drawn (splitmix64, once a column)."""
    state = np.full(len(numbers[0]), seed, dtype=np.uint64)
    for column in numbers:
        state = (state ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state
