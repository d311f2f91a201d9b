"""The atlas as it lies on disk, read by what is made of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from visae.errors import DataError
from visae.files import file_sha256, read_json

_CURE = "make it again with: visae atlas"
_COLUMNS = ("class_id", "latent", "estimate", "rank_estimate", "effect", "effect_low", "effect_high", "p", "verified")


def read_effects(path: str | Path) -> pl.DataFrame:
    """Read effects.parquet.

    Raises
    ------
    DataError
        If there is none, it cannot be read, or it lacks columns, as the table of another stage or of a version before.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such table; make it with: visae atlas")
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: it cannot be read as Parquet ({str(error).splitlines()[0]}); {_CURE}") from error
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"{path}: it is no table of this version's atlas: {', '.join(missing)} is missing; {_CURE}")
    return table


def read_atlas(path: str | Path, made_from: Iterable[str | Path]) -> dict[str, Any]:
    """Read atlas.json, and make sure that it is of the files that are now given.

    Parameters
    ----------
    made_from
        Files whose hashes it has to hold: config.json of the SAE, the manifest of its codes.

    Raises
    ------
    DataError
        If there is none, it is no atlas, or one of other files.
    """
    try:
        atlas: dict[str, Any] = read_json(path)
        hashes, _ = set(atlas["provenance"]["inputs"].values()), (atlas["task"], atlas["layer"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; it lies beside effects.parquet, and visae atlas makes both") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: it is no atlas ({type(error).__name__}: {error}); {_CURE}") from error
    for file in made_from:
        if file_sha256(Path(file)) not in hashes:
            raise DataError(
                f"{path}: it was not made from {file}: it is of another SAE, or older than its codes; {_CURE}"
            )
    return atlas
