"""Proposals of names: from the classes that latents find, or from a function that the user brings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.errors import DataError
from visae.explore.latents import Latents
from visae.features.names import best_classes
from visae.progress import progress_bar


class Namer(Protocol):
    """Gives names to what crops have in common, for instance by a captioning model or a CLIP text encoder."""

    def __call__(self, crops: Sequence[NDArray[np.uint8]]) -> Sequence[tuple[str, float]]:
        """Name a latent.

        Parameters
        ----------
        crops
            Surroundings of its strongest patches, RGB of uint8 (height, width, 3), the strongest first; their sizes
            may differ.

        Returns
        -------
        sequence
            Names with scores of any scale, the best first; empty where nothing fits.
        """


def load_namer(place: str) -> Namer:
    """Import a function by `module:function`.

    Raises
    ------
    DataError
        If there is no such module or function.
    """
    module, colon, name = place.partition(":")
    if not colon:
        raise DataError(f"by: {place!r}: write module:function, such as my_captions:name_crops")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"by: {place!r}: {error}; the module has to lie in the current folder or be installed in this environment"
        ) from error


def class_proposals(features: Latents, latents: Sequence[int] | None = None) -> pl.DataFrame:
    """Name latents after the class that each finds best: latent, name, note, f1, f1_low, f1_high, f1_random.

    A latent is left out where the interval of its held-out F1 reaches down to `f1_random`, the mean of latents that
    are about as often active.

    Raises
    ------
    DataError
        If there are no scores.
    """
    if features.scores is None:
        raise DataError(f"{features.files.scores}: no such file: names of classes need a data set with masks")
    found = best_classes(features.scores).filter(pl.col("f1_low") > pl.col("f1_random"))
    if latents is not None:
        found = found.filter(pl.col("latent").is_in(list(latents)))
    note = pl.format(
        "held-out F1 {} [{}, {}], by chance {}",
        *(pl.col(name).round(2) for name in ("f1", "f1_low", "f1_high", "f1_random")),
    )
    return found.select(
        "latent", pl.col("class_name").alias("name"), note.alias("note"), "f1", "f1_low", "f1_high", "f1_random"
    ).sort("f1", "latent", descending=[True, False])


def crop_proposals(features: Latents, namer: Namer, latents: Sequence[int], n_crops: int) -> pl.DataFrame:
    """Name latents by a function of the user's: latent, name, note (what else it said), score."""
    rows = []
    with progress_bar(len(latents), "naming", "latents") as bar:
        for latent in latents:
            names = list(namer(features.crops(latent, n_crops)))
            if names:
                name, score = names[0]
                others = ", ".join(f"{other} {value:.3g}" for other, value in names[1:])
                rows.append((latent, str(name), others or None, float(score)))
            bar.update()
    schema = {"latent": pl.Int32, "name": pl.String, "note": pl.String, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
