"""The table of sets of latents and what is said of them: how far they reach, what they spare, what they beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from visae.config.interventions import AUTOMATIC
from visae.discovery.choice import LatentSet
from visae.experiments.tables import MEAN, measured_columns, paired_p, sign_flips
from visae.features.resampling import benjamini_hochberg, p_value
from visae.intervals import interval, resampling_weights
from visae.tasks.counts import COMMON, ClassCounts, Key, Shares, Way, mean_shares, ratio, with_intervals
from visae.tasks.task import Task

SET, DIRECTION, RANDOM, UNTRAINED = "set", "direction", "random_latent", "untrained"
"""Arms: the set, what the class is read from, other latents of the SAE, and sets of untrained dictionaries."""

HALF = 0.5
"""The share of the direction's effect from which on a set counts as reaching it."""

Found = tuple[Shares, Shares]
"""Measures of an edit, and the same of resampled pictures."""


@dataclass(frozen=True)
class Measured:
    """The set of a class, and what its edits did.

    Attributes
    ----------
    edited
        Size of the set and what was counted, for each size and way.
    ranks
        By way: effect of the SAE's set, chosen without verification, and of those of untrained dictionaries.
    """

    class_id: int
    chosen: LatentSet
    edited: Sequence[tuple[int, ClassCounts]]
    ranks: Mapping[Way, tuple[float, list[float]]]

    def largest(self, way: Way) -> int:
        """Size of the largest set that was edited in a way."""
        return max(size for size, counts in self.edited if counts.way == way)


def schema(task: Task) -> dict[str, Any]:
    """Columns of sets.parquet."""
    return {
        "class_id": pl.Int32,
        "class_name": pl.String,
        "edit": pl.String,
        "scale": pl.Float64,
        "n_latents": pl.Int32,
        "whole": pl.Boolean,
        "arm": pl.String,
        "latents": pl.List(pl.Int32),
        "expected": pl.Float64,
        **measured_columns(("share",)),
        **measured_columns(COMMON),
        "p": pl.Float64,
        "q": pl.Float64,
        "n_images": pl.Int64,
        **measured_columns(task.added),
    }


def sets_table(
    task: Task, measured: Sequence[Measured], sizes: Sequence[int], resamples: int, seed: int
) -> pl.DataFrame:
    """One row a class, way, scale, size of the set and arm, and means over classes, whose class_id is null.

    Parameters
    ----------
    sizes
        Sizes that were asked for.

    Returns
    -------
    DataFrame
        `share` is what an arm reaches of what the direction does, in the task's `moves`; `whole` says that the size is
        that of the class's whole set. Means over classes are of each class's set of at most that size. `p` is that of
        the paired test that the set has a larger effect than the row's arm; `q`, of whole sets, the false discovery
        rate over classes.
    """
    n = len(task.measured)
    weights, signs = resampling_weights(n, resamples, seed), sign_flips(n, resamples, seed)
    rows: list[dict[str, Any]] = []
    by_edit: dict[tuple[Way, float, int, str], list[Found]] = {}
    for one in measured:
        for size, counts in one.edited:
            whole = size == one.largest(counts.way)
            # A class whose set is smaller stands with what it has among larger ones.
            beside = [asked for asked in sorted(set(sizes)) if min(asked, len(one.chosen.latents)) == size]
            for scale in sorted({key[2] for key in counts.edits}):
                of_arms = _arms(counts, scale)
                found = {arm: _measures(task, counts, key, weights) for arm, key in of_arms.items()}
                for arm, key in of_arms.items():
                    added = task.gained(counts, of_arms[SET], key)
                    about = {"class_id": one.class_id, "class_name": counts.target.class_name, "whole": whole}
                    own = {"latents": list(counts.target.latents), "expected": one.chosen.expected[size - 1]}
                    what = {"edit": counts.way, "scale": scale, "n_latents": size, "arm": arm}
                    p = None if arm == SET else paired_p(added, signs)
                    about |= {"p": p, "n_images": int((counts.n_target > 0).sum()), **(own if arm == SET else {})}
                    rows.append({**about, **what, **_reached(task, found[arm], found[DIRECTION])})
                    for asked in beside:
                        by_edit.setdefault((counts.way, scale, asked, arm), []).append(found[arm])
    _correct(rows)
    means = {what: _mean(found) for what, found in by_edit.items()}
    for (way, scale, size, arm), mean in means.items():
        about = {"class_name": MEAN, "edit": way, "scale": scale, "n_latents": size, "arm": arm}
        rows.append({**about, **_reached(task, mean, means[way, scale, size, DIRECTION])})
    table = pl.DataFrame(rows, schema=schema(task)).with_columns(pl.col(pl.Float64).fill_nan(None))
    order = ["class_id", "edit", "scale", "n_latents", "arm"]
    return table.sort(order, descending=[False, True, False, False, False], nulls_last=True)


def sets_summary(task: Task, measured: Sequence[Measured], table: pl.DataFrame) -> dict[str, Any]:
    """Say of each class's set how far it reaches of the direction's effect, what it spares and what it beats.

    Parameters
    ----------
    table
        What `sets_table` gives.
    """
    ranks: dict[tuple[int, Way], dict[str, Any]] = {
        (one.class_id, way): {"p_untrained": float(p_value(own, np.array(others))), "untrained": len(others)}
        for one in measured
        for way, (own, others) in one.ranks.items()
    }
    # Ways are corrected apart, as classes of one way are what is counted.
    for way in {way for _, way in ranks}:
        tests = [test for (_, of), test in ranks.items() if of == way]
        for test, q in zip(tests, benjamini_hochberg(np.array([test["p_untrained"] for test in tests])), strict=True):
            test["q_untrained"] = float(q)
    edits = [
        _edit(task, rows) | ranks.get((class_id, way), {})
        for (class_id, way, _), rows in table.filter("whole").group_by("class_id", "edit", "scale", maintain_order=True)
    ]
    means = table.filter(pl.col("class_id").is_null())
    largest = means.filter(pl.col("n_latents") == pl.col("n_latents").max())
    kept = ["edit", "scale", "arm", "n_latents"]
    kept += [f"{measure}{end}" for measure in ("share", task.moves, task.spills) for end in ("", "_low", "_high")]
    return {
        "moves": task.moves,
        "spills": task.spills,
        "mean": largest.select(kept).to_dicts(),
        "classes": edits,
    }


def _arms(counts: ClassCounts, scale: float) -> dict[str, Key]:
    """What was counted at a scale, by the name of the arm in the table."""
    keys = {key[0]: key for key in counts.edits if key[2] == scale and key[0] != "none"}
    return {SET if arm == AUTOMATIC else arm: key for arm, key in keys.items()}


def _measures(task: Task, counts: ClassCounts, key: Key, weights: Any) -> Found:
    return task.shares(counts.way, task.sums(counts, key)), task.shares(counts.way, task.sums(counts, key, weights))


def _mean(found: Sequence[Found]) -> Found:
    return mean_shares([one[0] for one in found]), mean_shares([one[1] for one in found])


def _reached(task: Task, found: Found, direction: Found) -> dict[str, float]:
    """Measures of an edit with their intervals, and its share of what the direction does."""
    own, resampled = (_quotient(*(of[place][task.moves] for of in (found, direction))) for place in (0, 1))
    low, high = interval(resampled)
    share = {"share": float(own), "share_low": low, "share_high": high}
    return {**share, **with_intervals(*found)}


def _quotient(above: Any, below: Any) -> Any:
    """Quotient of two changes in one direction; undefined where the lower does nothing."""
    return np.sign(below) * ratio(np.asarray(above), np.abs(np.asarray(below)))


def _correct(rows: list[dict[str, Any]]) -> None:
    """Add `q` to the rows of whole sets, in place."""
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["whole"] and row["p"] is not None:
            families.setdefault((row["edit"], row["scale"], row["arm"]), []).append(row)
    for family in families.values():
        for row, q in zip(family, benjamini_hochberg(np.array([row["p"] for row in family])), strict=True):
            row["q"] = float(q)


def _edit(task: Task, rows: pl.DataFrame) -> dict[str, Any]:
    """What sets.json says of a class's set, edited in one way."""
    arms = {row["arm"]: row for row in rows.to_dicts()}
    own = arms[SET]
    spilled = {arm: row[task.spills] for arm, row in arms.items()}
    share = own["share"]
    return {
        **{name: own[name] for name in ("class_id", "class_name", "edit", "scale", "latents", "expected")},
        **{name: own[name] for name in ("share", "share_low", "share_high")},
        "moved": {arm: row[task.moves] for arm, row in arms.items()},
        "spilled": spilled,
        "q": {arm: row["q"] for arm, row in arms.items() if arm != SET},
        "half": share is not None and share >= HALF,
        # Where a class is inserted into all others, nothing is beside it.
        "spares": None if spilled[SET] is None else spilled[SET] <= spilled[DIRECTION],
    }
