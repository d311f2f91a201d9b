"""Codes in ranges of latents, so that what is worked on at once fits into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from visae.config.kinds import TokenKinds
from visae.data.index import read_index
from visae.errors import StoreError
from visae.features.codes import read_codes_manifest, scan_codes

BLOCK_ROWS = 16_000_000
"""Codes worked on at once, about a gigabyte. More are worked through as ranges of latents, one after the other."""


def read_matching_manifest(codes_manifest: Path, index_path: Path) -> dict[str, Any]:
    """Return the codes' manifest; StoreError where the codes are not of the pictures in the index."""
    manifest = read_codes_manifest(codes_manifest)
    n_indexed = read_index(index_path).height
    if manifest["n_images"] != n_indexed:
        raise StoreError(
            f"{codes_manifest} describes {manifest['n_images']} pictures, but {index_path} lists {n_indexed}: "
            "they are of different data sets; write the codes again from the activations of this index"
        )
    return manifest


def codes_by_latents(
    codes_manifest: Path, block_rows: int = BLOCK_ROWS, kinds: TokenKinds | None = None
) -> Iterator[tuple[range, pl.LazyFrame]]:
    """Yield the codes in ranges of latents, so that what is grouped by latent at once fits into memory.

    Parameters
    ----------
    codes_manifest
        manifest.json of the codes.
    block_rows
        Codes in a range, at most; a single latent may have more.
    kinds
        As of `scan_codes`.

    Yields
    ------
    latents, codes
        The range of latents, and a lazy frame of their codes: image_id, token, latent, value.
    """
    width, codes = read_codes_manifest(codes_manifest)["width"], scan_codes(codes_manifest, kinds)
    for latents in _ranges(codes, width, block_rows):
        within = pl.col("latent").is_between(latents.start, latents.stop, closed="left")
        yield latents, codes.filter(within) if len(latents) < width else codes


def _ranges(codes: pl.LazyFrame, width: int, block_rows: int) -> Iterator[range]:
    """Split latents into ranges with at most that many codes."""
    found = codes.group_by("latent").len().collect(engine="streaming")
    counts = np.zeros(width, dtype=np.int64)
    counts[found["latent"].to_numpy()] = found["len"].to_numpy()
    until, start = counts.cumsum(), 0
    while start < width:
        before = until[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(until, before + block_rows, side="right")))
        yield range(start, stop)
        start = stop
