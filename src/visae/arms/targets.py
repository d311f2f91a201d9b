"""Which latents stand for which class, and which other ones they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from visae.arms.changes import SetLatents
from visae.errors import DataError
from visae.features.auc import latent_aucs
from visae.features.codes import scan_codes
from visae.features.concepts import Labels, choose
from visae.tasks.counts import Target

# A frequency-matched latent is drawn among this many whose frequency is nearest.
NEAREST = 10
NOT_LEARNED = "the head has not learned it: it does not occur in the split that the head learned from"


@dataclass(frozen=True)
class Activity:
    """How many tokens of the selection split each latent is active on, and its largest value there."""

    count: Mapping[int, int]
    largest: Mapping[int, float]

    def edit(self, latents: tuple[int, ...]) -> SetLatents:
        """Edit of latents, all active on the selection split, in multiples of their largest values there."""
        return SetLatents(latents, tuple(self.largest[latent] for latent in latents))


def latent_activity(codes_manifest: str | Path, image_ids: range) -> Activity:
    """Activity of every latent that is active on these pictures, on tokens that its SAE is of."""
    found = (
        scan_codes(codes_manifest)
        .filter(pl.col("image_id").is_between(image_ids.start, image_ids.stop, closed="left") & (pl.col("value") > 0))
        .group_by("latent")
        .agg(pl.len(), pl.col("value").max())
        .collect(engine="streaming")
        .sort("latent")
    )
    latents = found["latent"].to_list()
    return Activity(dict(zip(latents, found["len"], strict=True)), dict(zip(latents, found["value"], strict=True)))


Manual = Mapping[str, Sequence[int]]
"""Latents named by hand, by class name."""


def check_manual(
    manual: Manual, task: str, head: str | Path, classes: Collection[str], width: int, activity: Activity
) -> None:
    """Raise DataError where what a study names by hand for a task is not there.

    Parameters
    ----------
    head, classes
        metrics.json of the task's head, and the names of the classes that it knows.
    width
        Latents of the SAE.
    """
    for class_name, latents in manual.items():
        at = f"studies: …: manual: …: {task}: {class_name}"
        if class_name not in classes:
            raise DataError(f"{at}: no class of {head}, which has {', '.join(sorted(classes))}")
        if not latents or not all(0 <= latent < width for latent in latents):
            raise DataError(f"{at}: {list(latents)}: name one latent or more; the SAE has latents 0 to {width - 1}")
        for latent in latents:
            if latent not in activity.largest:
                raise DataError(
                    f"{at}: latent {latent} is never active on the selection split, so it cannot be set to multiples "
                    "of its largest value there; name another"
                )


def targets_by_f1(scores_path: str | Path, n_latents: int) -> list[Target]:
    """Best latents of each class in scores.parquet, chosen by F1 on the fit split; classes without one are left out."""
    rows = pl.read_parquet(scores_path).filter((pl.col("rank") < n_latents) & pl.col("latent").is_not_null())
    grouped = rows.sort("class_id", "rank").group_by("class_id", "class_name", maintain_order=True)
    return [
        Target(class_id, class_name, tuple(latents), score)
        for class_id, class_name, latents, score in grouped.agg("latent", pl.col("f1_fit").first()).iter_rows()
    ]


def targets_by_patches(
    blocks: Callable[[], Iterator[tuple[range, pl.LazyFrame]]],
    labels: Labels,
    classes: Mapping[int, str],
    by: str,
    n_latents: int,
) -> list[Target]:
    """Best latents of each class on labelled patches, by `f1` or `auc`; see `visae.features.concepts.choose`.

    Parameters
    ----------
    blocks
        Gives codes, a range of latents at a time.
    labels
        Of the selection split; class numbers are positions in `classes`.
    """
    place = ("f1", "average_precision", "auc").index(by)
    chosen: dict[int, list[tuple[int, float]]] = {}
    for choice in choose(blocks, labels, by).choices:
        if choice.rank < n_latents:
            chosen.setdefault(choice.class_number, []).append((choice.latent, choice.fit[place]))
    names = list(classes.items())
    return [
        Target(*names[number], tuple(latent for latent, _ in found), found[0][1])
        for number, found in sorted(chosen.items())
    ]


def targets_by_auc(
    codes: pl.LazyFrame, labels: Mapping[int, int], classes: Mapping[int, str], n_latents: int = 1
) -> list[Target]:
    """Latents whose largest value in a picture best tells each class from the others.

    Parameters
    ----------
    codes
        As `scan_codes` gives them.
    labels
        Class of each picture of the selection split.
    classes
        Class id to name; those without pictures are left out.
    """
    best = (
        image_aucs(codes, labels)
        .sort("auc", "latent", descending=[True, False])
        .group_by("class_id", maintain_order=True)
        .agg(pl.col("latent").head(n_latents), pl.col("auc").first())
        .sort("class_id")
    )
    return [
        Target(class_id, classes[class_id], tuple(latents), auc)
        for class_id, latents, auc in best.iter_rows()
        if class_id in classes
    ]


def image_aucs(codes: pl.LazyFrame, labels: Mapping[int, int]) -> pl.DataFrame:
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
        codes.join(known.lazy(), on="image_id")
        .group_by("latent", "image_id", "class_id")
        .agg(pl.col("value").max())
        .collect(engine="streaming")
    )
    sizes = known.group_by("class_id").agg(positives=pl.len())
    return latent_aucs(peaks, sizes)


@dataclass(frozen=True)
class Controls:
    """Latents drawn to compare a class's own with, as many of them in each draw."""

    random: list[tuple[int, ...]]
    frequency_matched: list[tuple[int, ...]]


def drawn_controls(targets: list[Target], activity: Activity, draws: int, seed: int) -> dict[int, Controls]:
    """Draw other latents for each class, by class id.

    They are drawn without replacement among latents that are active on the selection split and no class's own:
    random ones among all, frequency-matched ones, for each of the class's latents, among the NEAREST whose log
    frequency is closest. Draws depend on the class id, not on which other classes there are.

    Raises
    ------
    DataError
        If too few latents are active.
    """
    pool = sorted(set(activity.count) - {latent for target in targets for latent in target.latents})
    most = max((len(target.latents) for target in targets), default=0)
    if targets and len(pool) < draws * most:
        raise DataError(
            f"interventions: random_draws: {draws * most} random latents wanted, but only {len(pool)} others are "
            "active on the selection split; lower random_draws or latents_per_class, or train a larger sparse "
            "autoencoder"
        )
    frequency = np.log([activity.count[latent] for latent in pool])
    drawn = {}
    for target in targets:
        generator = np.random.default_rng([seed, target.class_id])
        random = generator.choice(pool, size=(draws, len(target.latents)), replace=False).tolist()
        left = np.ones(len(pool), dtype=bool)
        matched: list[list[int]] = []
        for latent in target.latents:
            distance = np.abs(frequency - np.log(activity.count[latent]))
            nearest = np.argsort(np.where(left, distance, np.inf), kind="stable")[
                : min(max(NEAREST, draws), left.sum())
            ]
            chosen = generator.choice(nearest, size=draws, replace=False)
            left[chosen] = False
            matched.append([pool[place] for place in chosen])
        by_draw = [tuple(latents) for latents in zip(*matched, strict=True)]
        drawn[target.class_id] = Controls([tuple(latents) for latents in random], by_draw)
    return drawn


def latent_draws(target: Target, controls: Controls, activity: Activity) -> dict[str, list[SetLatents]]:
    """Draws of the arms that every experiment has, whatever its head: latents drawn at random, and the class's own."""
    return {
        "random_latent": [activity.edit(latents) for latents in controls.random],
        "frequency_matched": [activity.edit(latents) for latents in controls.frequency_matched],
        "automatic": [activity.edit(target.latents)],
    }
