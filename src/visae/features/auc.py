"""How well a latent's value tells a class from all others: the area under the ROC curve, from non-zero codes alone."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


def latent_aucs(active: pl.DataFrame, sizes: pl.DataFrame) -> pl.DataFrame:
    """Area under the ROC curve of every latent and class, against all other classes.

    Patches or pictures where a latent is silent are tied at the bottom, so only active ones have to be ranked.

    Parameters
    ----------
    active
        latent, class_id and value, one row for each patch or picture where the latent is active.
    sizes
        class_id and positives: patches or pictures of each class, active or not.

    Returns
    -------
    DataFrame
        class_id, latent, auc, sorted. Latents that are active in no member of the class (AUC of 0.5 at most), and
        classes that all belong to, are left out.
    """
    total = int(sizes["positives"].sum())
    silent = total - pl.len().over("latent")
    ranked = active.with_columns(silent=silent, rank=pl.col("value").rank("average").over("latent") + silent)
    sums = ranked.group_by("latent", "class_id").agg(
        ranks=pl.col("rank").sum(), active=pl.len(), silent=pl.col("silent").first()
    )
    p = pl.col("positives").cast(pl.Float64)
    silent_ranks = (p - pl.col("active")) * (pl.col("silent") + 1) / 2
    auc = (pl.col("ranks") + silent_ranks - p * (p + 1) / 2) / (p * (total - p))
    return (
        sums.join(sizes, on="class_id")
        .filter(pl.col("positives") < total)
        .select("class_id", "latent", auc=auc)
        .sort("class_id", "latent")
    )


def weighted_auc(
    values: NDArray[np.float32],
    positive: NDArray[np.bool_],
    pictures: NDArray[np.integer],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Area under the ROC curve when pictures count several times or not at all; NaN without both kinds of patches.

    Parameters
    ----------
    values, positive, pictures
        (n_patches,) the latent's value, whether the patch is of the class, and the number of its picture.
    weights
        (resamples, n_pictures), how often each picture counts.

    Returns
    -------
    ndarray
        (resamples,).
    """
    levels, level = np.unique(values, return_inverse=True)

    def at_levels(of: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Weight of those patches at each level, (resamples, levels)."""
        places = pictures[of] * len(levels) + level[of]
        counts = np.bincount(places, minlength=weights.shape[1] * len(levels))
        return np.asarray(weights @ counts.reshape(weights.shape[1], len(levels)), dtype=np.float64)

    above, below = at_levels(positive), at_levels(~positive)
    won = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return won / (above.sum(axis=1) * below.sum(axis=1))
