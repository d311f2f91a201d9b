"""Dose and response: what becomes of the edited patches and of the others as a latent is set to ever other values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.activations.store import ActivationStore, Kinds
from visae.arms.arms import Outcome
from visae.arms.changes import Draws
from visae.config.interventions import AUTOMATIC, MATCHED
from visae.edits.edit import ActiveValues
from visae.experiments.runner import Batch, Runner
from visae.experiments.tables import measured_columns
from visae.intervals import resampling_weights
from visae.tasks.counts import COMMON, SUPPRESS, ClassCounts, Key, Shares, Target, mean_shares, with_intervals
from visae.tasks.task import Task

# Arms whose curves are drawn, the controls as long as the automatic arm's change on each patch.
DOSED = ("random_vector", "random_latent", "frequency_matched", AUTOMATIC)
NATURAL_SHARE = 0.99
LARGEST, QUANTILE = "largest", "quantile"


@dataclass
class Doses:
    """Response of one class: counts by arm and scale, and edited patches whose norm is a natural one.

    Attributes
    ----------
    quantiles
        Scale that stands for each quantile of the first latent's active values.
    natural
        By key: edited patches within the norm limit.
    n_edited
        Edited patches.
    """

    counts: ClassCounts
    quantiles: dict[float, float]
    natural: dict[Key, int] = field(default_factory=dict)
    n_edited: int = 0


def natural_norm(store: ActivationStore, split: str, kinds: Kinds = "patches") -> float:
    """Norm below which NATURAL_SHARE of a split's tokens of a kind are."""
    norms = [tokens.norm(dim=2).flatten() for _, tokens in store.iterate(split, kinds=kinds)]
    return float(np.quantile(torch.cat(norms).numpy(), NATURAL_SHARE))


def respond(runner: Runner, target: Target, draws: Draws, observed: ActiveValues, limit: float) -> Doses:
    """Run every dose on some pictures of a class, one draw an arm.

    Parameters
    ----------
    observed
        Active values of the class's first latent.
    limit
        Norm that counts as natural.
    """
    first, settings = target.latents[0], runner.settings
    largest = observed.largest(first)
    quantiles = {share: observed.quantile(first, share) / largest for share in settings.dose_quantiles}
    doses = Doses(runner.sampled(target, SUPPRESS), quantiles)
    scales = tuple(sorted({*settings.doses, *quantiles.values()}))

    def watch(outcome: Outcome, batch: Batch) -> None:
        within = int(((batch.here.rows + outcome.change).norm(dim=1) <= limit).sum())
        for scale in outcome.scales:
            key = (outcome.arm, outcome.size, scale)
            doses.natural[key] = doses.natural.get(key, 0) + within
        doses.n_edited += int(batch.patches.sum()) if outcome.arm == "none" else 0

    dosed = {arm: draws[arm][:1] for arm in DOSED if arm in draws}
    runner.run(doses.counts, dosed, scales, (MATCHED,), watch=watch)
    return doses


def doses_table(task: Task, classes: Sequence[Doses], resamples: int, seed: int) -> pl.DataFrame:
    """One row an arm, class and dose, and one with the mean over classes for each dose in multiples of the largest.

    Returns
    -------
    DataFrame
        `dose` counts in `unit`: `largest`, multiples of a latent's largest value, or `quantile` of its active values;
        `scale` is the same in multiples of the largest. `natural_norm_share` is the share of edited patches whose norm
        is below that of NATURAL_SHARE of the selection split's patches.
    """
    weights = resampling_weights(len(task.measured), resamples, seed)
    rows: list[dict[str, Any]] = []
    by_dose: dict[tuple[str, str, float], list[tuple[Shares, Shares, float]]] = {}
    for doses in classes:
        counts, units = doses.counts, {scale: (QUANTILE, share) for share, scale in doses.quantiles.items()}
        who = {"class_name": counts.target.class_name, "class_id": counts.target.class_id}
        sizes = {"n_target": int(counts.n_target.sum()), "n_images": len(np.unique(counts.images[counts.n_target > 0]))}
        for key in counts.edits:
            arm, _, scale = key
            if arm == "none":
                continue
            unit, dose = units.get(scale, (LARGEST, scale))
            found, resampled = (task.shares(counts.way, task.sums(counts, key, by)) for by in (None, weights))
            natural = doses.natural[key] / max(doses.n_edited, 1)
            by_dose.setdefault((arm, unit, dose), []).append((found, resampled, natural))
            what = {"arm": arm, "unit": unit, "dose": dose, "scale": scale, "natural_norm_share": natural}
            rows.append(who | what | sizes | with_intervals(found, resampled))
    for (arm, unit, dose), of_classes in by_dose.items():
        found, resampled = mean_shares([one[0] for one in of_classes]), mean_shares([one[1] for one in of_classes])
        about = {"arm": arm, "class_name": "mean", "unit": unit, "dose": dose}
        natural = float(np.mean([one[2] for one in of_classes]))
        rows.append(about | {"natural_norm_share": natural} | with_intervals(found, resampled))
    table = pl.DataFrame(rows, schema=_schema(task)).with_columns(pl.col(pl.Float64).fill_nan(None))
    order = pl.col("arm").replace_strict({arm: number for number, arm in enumerate(DOSED)}, return_dtype=pl.Int8)
    return table.sort(order, pl.col("class_id"), "unit", "dose", nulls_last=True)


def _schema(task: Task) -> dict[str, Any]:
    return {
        "arm": pl.String,
        "class_name": pl.String,
        "class_id": pl.Int32,
        "unit": pl.String,
        "dose": pl.Float64,
        "scale": pl.Float64,
        **measured_columns(COMMON),
        "natural_norm_share": pl.Float64,
        "n_target": pl.Int64,
        "n_images": pl.Int64,
        **measured_columns(task.added),
    }


def responses(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Summarize each curve of `doses_table` on either side of 0; see `response`."""
    found = []
    curves = table.filter(unit=LARGEST).group_by("arm", "class_name", "class_id", maintain_order=True)
    for (arm, class_name, class_id), rows in curves:
        for side, kept in (("below", pl.col("dose") <= 0), ("above", pl.col("dose") >= 0)):
            part = rows.filter(kept).sort(pl.col("dose").abs())
            if len(part) > 1:
                about = {"arm": arm, "class_name": class_name, "class_id": class_id, "side": side}
                found.append(about | response(*part.select("dose", "target_change", "other_change").to_numpy().T))
    return found


def response(
    doses: NDArray[np.float64], target: NDArray[np.float64], other: NDArray[np.float64]
) -> dict[str, float | None]:
    """Summarize a curve, (n,) each, that begins at the smallest dose.

    Returns
    -------
    dict
        `monotonicity`: Spearman's correlation of the dose's size and the target change, null where the latter is the
        same throughout. `half_dose`: where the target change first reaches a half, interpolated, null where it never
        does; `other_change_at_half`: the other change there.
    """
    steady = bool(np.ptp(target) == 0)
    summary: dict[str, float | None] = {
        "monotonicity": None if steady else rank_correlation(np.abs(doses), target),
        "half_dose": None,
        "other_change_at_half": None,
    }
    reached = np.flatnonzero(target >= 0.5)
    if len(reached):
        at = int(reached[0])
        share = 1.0 if at == 0 else (0.5 - target[at - 1]) / (target[at] - target[at - 1])
        before = max(at - 1, 0)
        summary["half_dose"] = float(doses[before] + share * (doses[at] - doses[before]))
        summary["other_change_at_half"] = float(other[before] + share * (other[at] - other[before]))
    return summary


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's correlation of two series (n,), neither of which is the same throughout; ties have their mean rank.

    scipy.stats has it too, and takes a second to be imported.
    """
    ranks = []
    for values in (first, second):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = counts.cumsum()
        ranks.append((ends - (counts - 1) / 2)[place])
    return float(np.asarray(np.corrcoef(np.column_stack(ranks), rowvar=False))[1, 0])
