"""Which latents follow the background of made scenes, and which the texture that is the class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from visae.arms.targets import image_aucs
from visae.data.index import read_index
from visae.features.codes import scan_codes
from visae.features.resampling import wilson_interval

CAUSES = ("background", "texture")
FOLLOWS_FROM = 0.7
"""Area under the ROC curve from which a latent is said to follow a cause; 0.5 is chance."""


def followed(codes: str | Path, index: str | Path, split: str) -> pl.DataFrame | None:
    """How well each latent's largest value in a picture tells the values of known causes; None where none are known.

    Parameters
    ----------
    codes
        manifest.json of the codes.
    index
        Of a data set of kind scenes.
    split
        Where backgrounds do not go with textures: not the one that has the shortcut.

    Returns
    -------
    DataFrame
        `latent`; of background and of the largest object's texture, `auc_…`, the largest area under the ROC curve of
        one of its values against the others, and that value; and `follows`: the cause with the larger area, where that
        is FOLLOWS_FROM at least.
    """
    path = Path(index).parent / "pictures" / "causes.parquet"
    if not path.is_file():
        return None
    of_split = read_index(index).filter(pl.col("split") == split).select("image_id")
    causes = pl.read_parquet(path).filter("is_largest").join(of_split, on="image_id").sort("image_id")
    found = [_best(codes, causes, cause) for cause in CAUSES]
    table = found[0].join(found[1], on="latent", how="full", coalesce=True)
    areas = [pl.col(f"auc_{cause}").fill_null(0.5) for cause in CAUSES]
    larger = pl.when(areas[0] >= areas[1]).then(pl.lit(CAUSES[0])).otherwise(pl.lit(CAUSES[1]))
    follows = pl.when(pl.max_horizontal(areas) >= FOLLOWS_FROM).then(larger)
    return table.with_columns(follows=follows).sort("latent")


def _best(codes: str | Path, causes: pl.DataFrame, cause: str) -> pl.DataFrame:
    """Of each latent the value of a cause that it tells best."""
    values = sorted(causes[cause].unique().to_list())
    labels = dict(zip(causes["image_id"].to_list(), map(values.index, causes[cause].to_list()), strict=True))
    return (
        image_aucs(scan_codes(codes), labels)
        .sort("latent", "auc", "class_id", descending=[False, True, False])
        .group_by("latent", maintain_order=True)
        .first()
        .select(
            "latent",
            pl.col("auc").alias(f"auc_{cause}"),
            pl.col("class_id").replace_strict(dict(enumerate(values)), return_dtype=pl.String).alias(cause),
        )
    )


def share_that_follows(table: pl.DataFrame, latents: Sequence[int]) -> dict[str, Any]:
    """Share of some latents that follow the background, with Wilson's interval, and that of all that are active.

    Parameters
    ----------
    table
        As `followed` gives it.
    """
    follows = pl.col("follows") == "background"
    own = table.filter(pl.col("latent").is_in(list(latents)) & follows)
    low, high = wilson_interval(np.array(len(own)), np.array(len(latents)))
    return {
        "n": len(latents),
        "share": len(own) / len(latents) if latents else None,
        "low": float(low) if latents else None,
        "high": float(high) if latents else None,
        "of_all": float(table.select(follows.fill_null(False).mean()).item()) if len(table) else None,
    }
