"""Make vectors of users, and a recommender's items, whose every cause is known: a sparse mix of tastes a user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import UsersSettings
from visae.files import atomic_path, write_table

SPLITS = ("train", "val", "test")
_WEAKEST, _STRONGEST = 0.5, 1.5
_POPULARITY = 0.15
"""Standard deviation of what an item's popularity adds to its score, of every user alike."""


def make_users(settings: UsersSettings, folder: str | Path, seed: int) -> None:
    """Write vectors of users, the items that they are scored for, and the truth.

    A user likes one to `tastes_per_user` tastes, each with a strength between 0.5 and 1.5. The vector is the sum of the
    tastes' directions times their strengths, of a direction that all users share, and of noise. An item's vector is
    the direction of its taste, more or less of the shared direction, which makes it popular, and something of its own.
    Directions are drawn evenly from the sphere, so that none is orthogonal to another.

    `vectors/{split}/users.parquet` are given activations; `readout.safetensors` has `weight` (n_items, d_model), with
    names and classes in its metadata; `truth.safetensors` has `tastes` (n_tastes, d_model), and `liked.parquet` one
    row a user and taste: image_id, split, taste, strength.

    Parameters
    ----------
    settings
        How many there are.
    folder
        Where to.
    seed
        Decides everything. A user depends on it and on how many users the split has.
    """
    folder = Path(folder)
    generator = np.random.default_rng([seed, len(SPLITS)])
    directions = _directions(generator, settings.tastes + 1, settings.d_model)
    tastes, shared = directions[:-1], directions[-1]
    n_items = settings.tastes * settings.items_per_taste
    of_taste = np.repeat(np.arange(settings.tastes), settings.items_per_taste)
    items = tastes[of_taste] + settings.item_noise * _directions(generator, n_items, settings.d_model)
    items += _POPULARITY * generator.standard_normal(n_items)[:, None] * shared
    liked, first = [], 0
    for number, split in enumerate(SPLITS):
        count = getattr(settings, split)
        own = np.random.default_rng([seed, number])
        strengths = _strengths(own, count, settings)
        vectors = strengths @ tastes + shared + settings.noise * _directions(own, count, settings.d_model)
        _write_vectors(folder / "vectors" / split / "users.parquet", vectors)
        user, taste = np.nonzero(strengths)
        columns = {"image_id": user + first, "split": split, "taste": taste, "strength": strengths[user, taste]}
        liked.append(pl.DataFrame(columns).cast({"image_id": pl.Int32, "taste": pl.Int32}))
        first += count
    write_table(folder / "liked.parquet", pl.concat(liked))
    kinds = [f"taste {taste + 1}" for taste in range(settings.tastes)]
    names = [f"item {1 + item % settings.items_per_taste} of {kinds[taste]}" for item, taste in enumerate(of_taste)]
    metadata = {"names": json.dumps(names), "classes": json.dumps([kinds[taste] for taste in of_taste])}
    _write_tensor(folder / "readout.safetensors", "weight", items, metadata)
    _write_tensor(folder / "truth.safetensors", "tastes", tastes, {"names": json.dumps(kinds)})


def _directions(generator: np.random.Generator, n: int, d_model: int) -> NDArray[np.float64]:
    """Unit vectors (n, d_model), drawn evenly."""
    drawn = generator.standard_normal((n, d_model))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _strengths(generator: np.random.Generator, n: int, settings: UsersSettings) -> NDArray[np.float64]:
    """How much each user likes each taste, (n, tastes), 0 for most."""
    most = min(settings.tastes_per_user, settings.tastes)
    rank = generator.random((n, settings.tastes)).argsort(axis=1).argsort(axis=1)
    likes = rank < generator.integers(1, most + 1, n)[:, None]
    return likes * generator.uniform(_WEAKEST, _STRONGEST, likes.shape)


def _write_vectors(path: Path, vectors: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pl.Series(vectors.astype(np.float32), dtype=pl.Array(pl.Float32, vectors.shape[1]))
    frame = pl.DataFrame({"image_id": pl.Series(range(len(vectors)), dtype=pl.Int32), "activation": column})
    write_table(path, frame)


def _write_tensor(path: Path, name: str, rows: NDArray[np.float64], metadata: dict[str, str]) -> None:
    # The library writes metadata in another order each time, and summaries keep the file's hash.
    values = rows.astype("<f4").tobytes()
    tensor = {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [0, len(values)]}
    header = json.dumps({"__metadata__": metadata, name: tensor}).encode()
    header += b" " * (-len(header) % 8)
    with atomic_path(path) as temporary:
        Path(temporary).write_bytes(len(header).to_bytes(8, "little") + header + values)
