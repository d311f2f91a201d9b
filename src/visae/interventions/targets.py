"""Which latent stands for which class, and which random ones it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from visae.errors import DataError
from visae.features.auc import latent_aucs
from visae.features.codes import scan_codes
from visae.interventions.arms import Latents


@dataclass(frozen=True)
class Target:
    """A class and the latent chosen for it; `score` is what it was chosen by, on the selection split."""

    class_id: int
    class_name: str
    latent: int
    score: float


def targets_by_f1(scores_path: str | Path) -> list[Target]:
    """Best latent of each class in scores.parquet, chosen by F1 on the fit split; classes without one are left out."""
    rows = pl.read_parquet(scores_path).filter((pl.col("rank") == 0) & pl.col("latent").is_not_null()).sort("class_id")
    return [Target(*row) for row in rows.select("class_id", "class_name", "latent", "f1_fit").iter_rows()]


def targets_by_auc(codes_manifest: str | Path, labels: dict[int, int], classes: dict[int, str]) -> list[Target]:
    """Latent whose largest value in a picture best tells each class from the others.

    Parameters
    ----------
    labels
        Class of each picture of the selection split.
    classes
        Class id to name; those without pictures are left out.
    """
    best = (
        image_aucs(codes_manifest, labels)
        .sort("auc", "latent", descending=[True, False])
        .group_by("class_id", maintain_order=True)
        .first()
        .sort("class_id")
    )
    rows = best.select("class_id", "latent", "auc").iter_rows()
    return [Target(class_id, classes[class_id], latent, auc) for class_id, latent, auc in rows if class_id in classes]


def image_aucs(codes_manifest: str | Path, labels: dict[int, int]) -> pl.DataFrame:
    """Area under the ROC curve of every latent's largest value in a picture, per class, against all other classes.

    Pictures where a latent is silent are tied at the bottom, so only active ones have to be ranked.

    Returns
    -------
    DataFrame
        class_id, latent, auc; latents that are active in no picture of the class are left out (AUC of 0.5 at most).
    """
    known = pl.DataFrame(
        {"image_id": list(labels), "class_id": list(labels.values())},
        schema={"image_id": pl.Int32, "class_id": pl.Int64},
    )
    peaks = (
        scan_codes(codes_manifest)
        .join(known.lazy(), on="image_id")
        .group_by("latent", "image_id", "class_id")
        .agg(pl.col("value").max())
        .collect(engine="streaming")
    )
    sizes = known.group_by("class_id").agg(positives=pl.len())
    return latent_aucs(peaks, sizes)


def largest_values(codes_manifest: str | Path, image_ids: range) -> dict[int, float]:
    """Largest value of every latent that is active on these pictures."""
    found = (
        scan_codes(codes_manifest)
        .filter(pl.col("image_id").is_between(image_ids.start, image_ids.stop, closed="left"))
        .group_by("latent")
        .agg(pl.col("value").max())
        .collect(engine="streaming")
        .sort("latent")
    )
    return dict(zip(found["latent"].to_list(), found["value"].to_list(), strict=True))


def with_controls(
    targets: list[Target],
    largest: dict[int, float],
    *,
    d_model: int,
    draws: int,
    seed: int,
    device: torch.device,
) -> dict[int, Latents]:
    """Draw random latents and vectors for each class, by class id.

    Random latents are drawn without replacement among those active on the selection split, leaving out every
    class's own latent. Draws depend on the class id, not on which other classes there are.

    Raises
    ------
    DataError
        If too few latents are active.
    """
    pool = sorted(set(largest) - {target.latent for target in targets})
    if targets and len(pool) < draws:
        raise DataError(
            f"interventions: random_draws: {draws} random latents wanted, but only {len(pool)} others are active on "
            "the selection split; lower random_draws or train a larger sparse autoencoder"
        )
    drawn = {}
    for target in targets:
        generator = np.random.default_rng([seed, target.class_id])
        latents = [target.latent, *generator.choice(pool, size=draws, replace=False).tolist()]
        vectors = torch.from_numpy(generator.standard_normal((draws, d_model))).float()
        drawn[target.class_id] = Latents(
            latents,
            torch.tensor([largest[latent] for latent in latents], device=device),
            torch.nn.functional.normalize(vectors).to(device),
        )
    return drawn
