"""Which latents are active in a region and not elsewhere."""

from __future__ import annotations

import polars as pl


def rank_latents(codes: pl.LazyFrame, region: pl.DataFrame) -> pl.DataFrame:
    """Rank latents by how much more active they are inside a region than outside it.

    The mean is taken over all patches, a silent one counting 0, so that neither a large region nor a large
    surrounding has an advantage: difference = sum_inside / patches inside - sum_outside / patches outside.

    Parameters
    ----------
    codes
        image_id, token, latent, value: non-zero codes of patches.
    region
        image_id, token, inside: every patch that counts, once. Patches that are not listed count for nothing.

    Returns
    -------
    DataFrame
        latent, difference, mean_inside, mean_outside, sum_inside, sum_outside of every latent that is active inside;
        the largest difference first, of equal ones the lower latent.
    """
    n_inside = int(region["inside"].sum())
    n_outside = region.height - n_inside
    value = pl.col("value").cast(pl.Float64)
    # Threads add in the order in which they finish: rounded once, to 12 digits, sums are the same bits each time.
    return (
        codes.join(region.lazy(), on=["image_id", "token"])
        .group_by("latent")
        .agg(
            value.filter(pl.col("inside")).sum().round_sig_figs(12).alias("sum_inside"),
            value.filter(~pl.col("inside")).sum().round_sig_figs(12).alias("sum_outside"),
        )
        .filter(pl.col("sum_inside") > 0)
        .with_columns(
            (pl.col("sum_inside") / n_inside).alias("mean_inside"),
            (pl.col("sum_outside") / n_outside).alias("mean_outside"),
        )
        .with_columns((pl.col("mean_inside") - pl.col("mean_outside")).alias("difference"))
        .sort("difference", "latent", descending=[True, False])
        .select("latent", "difference", "mean_inside", "mean_outside", "sum_inside", "sum_outside")
        .collect(engine="streaming")
    )
