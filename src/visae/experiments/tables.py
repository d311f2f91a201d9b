"""The tables that experiments publish; those of all tasks have the same columns, and what a task adds comes last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.interventions import ARMS, AUTOMATIC, MATCHED, NATURAL
from visae.errors import DataError
from visae.features.resampling import benjamini_hochberg, p_value
from visae.intervals import resampling_weights
from visae.tasks.counts import COMMON, INSERT, SUPPRESS, ClassCounts, Key, Way, mean_shares, with_intervals

if TYPE_CHECKING:  # tables are read where nobody waits for torch
    from visae.tasks.task import Task

MEAN, POOLED = "mean", "pooled"
ALPHA = 0.05
"""False discovery rate at which a class is called significant."""

CHANCE = ("random_vector", "random_latent", "frequency_matched")
"""Arms that stand for chance: they know nothing of the class."""

ABOUT: dict[str, Any] = {
    "edit": pl.String,
    "arm": pl.String,
    "size": pl.String,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "scale": pl.Float64,
}
"""What every row of every table is about."""


def read_table(path: str | Path) -> pl.DataFrame:
    """Read a table of an experiment; DataError where there is none, or a version before wrote it."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such table; make it with: snakemake interventions")
    table = pl.read_parquet(path)
    if path.stem in ("arms", "becomes", "examples") and "edit" not in table.columns:
        raise DataError(
            f"{path}: a version before wrote it, without a column edit; make it again: snakemake --force {path}"
        )
    return table


def measured_columns(measures: tuple[str, ...]) -> dict[str, Any]:
    """Columns of measures with their intervals."""
    return {f"{measure}{end}": pl.Float64 for measure in measures for end in ("", "_low", "_high")}


def arms_table(
    task: Task,
    classes: list[ClassCounts],
    latents: Mapping[tuple[str, int], tuple[int, ...]],
    resamples: int,
    seed: int,
) -> pl.DataFrame:
    """One row an edit, arm, size, scale and class, and two for all classes: their mean, and their units pooled.

    Parameters
    ----------
    latents
        What the arms of one draw edit, by arm and class id.

    Returns
    -------
    DataFrame
        The task's measures with intervals from resampled pictures. `p` is that of the paired test that the automatic
        arm, at its own size, has a larger effect than the row's arm; `q` the false discovery rate over classes. Which
        measure the effect is, is the task's `effect`.
    """
    n = len(task.measured)
    weights, signs = resampling_weights(n, resamples, seed), sign_flips(n, resamples, seed)
    rows: list[dict[str, Any]] = []
    for way, key in _keys(classes):
        arm, size, scale = key
        own = [counts for counts in classes if counts.way == way and key in counts.edits]
        sums = [task.sums(counts, key) for counts in own]
        spreads = [task.sums(counts, key, weights) for counts in own]
        found, resampled = ([task.shares(way, one) for one in of_all] for of_all in (sums, spreads))
        is_control = arm != AUTOMATIC
        added = [task.gained(counts, (AUTOMATIC, NATURAL, scale), key) for counts in own]
        p = np.array([paired_p(difference, signs) if is_control else np.nan for difference in added])
        about = {"edit": way, "arm": arm, "size": size, "scale": scale}
        for counts, share, spread, one_p, q in zip(own, found, resampled, p, benjamini_hochberg(p), strict=True):
            target = counts.target
            who = {"class_name": target.class_name, "class_id": target.class_id}
            edited = {"latents": latents.get((arm, target.class_id)), "p": one_p, "q": q}
            rows.append(about | who | edited | with_intervals(share, spread) | _sizes([counts]))
        pooled, pooled_spread = (task.shares(way, _added(of_all)) for of_all in (sums, spreads))
        together = ((MEAN, mean_shares(found), mean_shares(resampled)), (POOLED, pooled, pooled_spread))
        for name, share, spread in together:
            one_p = paired_p(np.mean(added, axis=0), signs) if is_control and name == MEAN else None
            rows.append(about | {"class_name": name, "p": one_p} | with_intervals(share, spread) | _sizes(own))
    return pl.DataFrame(rows, schema=_arms_schema(task)).with_columns(pl.col(pl.Float64).fill_nan(None))


def becomes_table(task: Task, classes: list[ClassCounts]) -> pl.DataFrame:
    """What target units are taken for after each edit, one row an edit, arm, size, scale and pair of classes.

    Returns
    -------
    DataFrame
        `share` of the target units, or of the places of the lists of a readout; tasks on pictures have
        `probability_change`, the mean change of the class's probability, for the edited class and those that gain most.
    """
    rows = []
    for way, key in _keys(classes):
        for counts in classes:
            if counts.way == way and key in counts.edits and counts.n_target.any():
                about = dict(zip(("arm", "size", "scale"), key, strict=True)) | {"edit": way}
                who = {"class_name": counts.target.class_name, "class_id": counts.target.class_id}
                for found in task.becomes(counts, key):
                    after = {"class_name_after": task.classes[int(found["number"])]["name"]}
                    rows.append(about | who | after | {name: found[name] for name in found if name != "number"})
    schema = ABOUT | {"class_name_after": pl.String, "share": pl.Float64, "probability_change": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def untrained_table(ranked: Mapping[int, NDArray[np.float64]], names: Mapping[int, str]) -> pl.DataFrame:
    """One row a class and dictionary, 0 the tested one: the effect of its latents; null where it found none."""
    rows = [
        (names[class_id], class_id, number, float(value) if np.isfinite(value) else None)
        for class_id, values in ranked.items()
        for number, value in enumerate(values)
    ]
    schema = {"class_name": pl.String, "class_id": pl.Int32, "dictionary": pl.Int32, "effect": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def significance(
    table: pl.DataFrame, rank_tests: Mapping[int, dict[str, float]], scale: float
) -> dict[int, dict[str, Any]]:
    """Say of each ranked class whether its latents do more than chance, by class id.

    They do where, at false discovery rates of at most ALPHA, they do more than the latents of untrained dictionaries
    and more than each arm of CHANCE that was run, as long on each patch.

    Parameters
    ----------
    table
        What `arms_table` gives.
    scale
        Of the paired tests.
    """
    controls = table.filter(
        pl.col("arm").is_in(CHANCE), pl.col("class_id").is_not_null(), edit=SUPPRESS, size=MATCHED, scale=scale
    )
    worst = dict(controls.group_by("class_id").agg(pl.col("q").max()).iter_rows())
    return {
        class_id: {**test, "significant": max(test["q_untrained"], worst.get(class_id, 0)) <= ALPHA}
        for class_id, test in rank_tests.items()
    }


def over_classes(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of all classes together, for the summary."""
    return table.filter(pl.col("class_id").is_null()).drop("class_id", "latents", "q").to_dicts()


def sign_flips(n_images: int, flips: int, seed: int) -> NDArray[np.int8]:
    """Signs (flips, n_images) for paired tests; one matrix serves all classes, so that tests keep their pairing."""
    return (2 * np.random.default_rng([seed, 3]).integers(2, size=(flips, n_images)) - 1).astype(np.int8)


def paired_p(difference: NDArray[np.float64], signs: NDArray[np.int8]) -> float:
    """Chance of so large a sum of differences (n_images,) if the two edits were swapped in each picture at random."""
    # Sums of the same numbers in another order are not equal to the last bit.
    observed = difference.sum() - 1e-12
    return float(p_value(observed, signs @ difference))


def _arms_schema(task: Task) -> dict[str, Any]:
    sizes = dict.fromkeys(("n_target", "n_other", "n_images"), pl.Int64)
    tests = {"p": pl.Float64, "q": pl.Float64}
    common = ABOUT | {"latents": pl.List(pl.Int32)} | measured_columns(COMMON) | tests | sizes
    return common | measured_columns(task.added)


def _added(sums: list[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """Sums of all classes together."""
    return {name: np.sum([one[name] for one in sums], axis=0) for name in sums[0]}


def _keys(classes: list[ClassCounts]) -> list[tuple[Way, Key]]:
    """All edits, suppressions first, in the order of ARMS."""
    keys = dict.fromkeys((counts.way, key) for counts in classes for key in counts.edits)
    return sorted(keys, key=lambda found: (found[0] == INSERT, ARMS.index(found[1][0])))


def _sizes(classes: list[ClassCounts]) -> dict[str, int]:
    images = np.concatenate([counts.images[counts.n_target > 0] for counts in classes])
    return {
        "n_target": int(sum(counts.n_target.sum() for counts in classes)),
        "n_other": int(sum(counts.n_other.sum() for counts in classes)),
        "n_images": len(np.unique(images)),
    }
