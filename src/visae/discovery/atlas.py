"""The atlas of a task: every latent's estimated effect on every class, and the proven ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from visae.config.settings import AtlasSettings, InterventionSettings
from visae.device import chosen_device, described
from visae.discovery.estimate import estimated_effects
from visae.discovery.judge import judged, summary_of
from visae.discovery.pairs import RANKINGS, Pair, Rankings, ranked
from visae.discovery.verify import Verifier
from visae.errors import DataError
from visae.experiments.files import ExperimentFiles
from visae.experiments.opened import FIT, MEASURED, Opened
from visae.experiments.runner import Runner
from visae.experiments.tables import measured_columns
from visae.files import write_json, write_table
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.tasks.counts import COMMON

SCHEMA: dict[str, Any] = {
    "class_id": pl.Int32,
    "class_name": pl.String,
    "latent": pl.Int32,
    "estimate": pl.Float64,
    **{f"rank_{ranking}": pl.Int32 for ranking in RANKINGS},
    **measured_columns(("effect",)),
    "control": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "verified": pl.Boolean,
    **measured_columns(COMMON),
    "half_dose": pl.Float64,
    "other_change_at_half": pl.Float64,
    "monotonicity": pl.Float64,
    **measured_columns(("effect_again",)),
    "p_again": pl.Float64,
    "replicates": pl.Boolean,
    "n_units": pl.Int64,
    "n_images": pl.Int64,
}
"""Columns of effects.parquet: one row a pair of a class and a latent that is active; null where it was not edited."""


def run_atlas(
    task: str,
    files: ExperimentFiles,
    settings: AtlasSettings,
    layer: int,
    output: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Find the latents that a task uses, prove them by edits, and write effects.parquet and atlas.json into `output`.

    The effect of switching off each latent on each class's log odds is estimated on split train from backward passes.
    The first pairs by that estimate, and as many by labels (F1 of patches, AUC of pictures) and at random, are then
    edited on one half of split val: the latent is set to 0, and beside it random latents are moved as far on each
    patch. A pair is verified where its effect has the direction of the estimate and is larger than that of random
    latents at a false discovery rate of 5 % over all edited pairs, and its interval leaves out 0. What is verified is
    edited again on the other half.

    Parameters
    ----------
    task
        A task of the study.
    files
        What it is run from; as for an experiment.
    settings
        Section `atlas`.
    layer
        Whose output is edited.
    output
        Folder.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What atlas.json holds.

    Raises
    ------
    DataError
        If no latent is active on split train.
    StoreError
        If the store lacks one of both splits.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    edits = InterventionSettings(batch_size=settings.batch_size, bootstrap=settings.bootstrap)
    found = Opened.of(task, files, edits, layer, chosen, seed)
    opened, activity = found.task, found.activity
    if not activity.count:
        raise DataError(f"{files.codes}: no latent is active on split {FIT}; train the SAE for longer")
    started = time.monotonic()
    effects = estimated_effects(found.selection, settings.pictures, settings.points)
    estimated = time.monotonic()
    class_ids = [int(c["id"]) for c in opened.classes]
    scored = found.selection.scored(settings.verified)
    rankings = ranked(effects, class_ids, sorted(activity.count), scored, settings.verified, seed)
    opened.look(opened.store.image_ids(MEASURED))
    verifier = Verifier(Runner(opened, found.sae, edits, seed), activity, settings, frozenset(rankings.pairs), seed)
    rows = _verified(verifier, rankings)
    ended = time.monotonic()
    table = _table(rankings, rows, opened.names)
    write_table(output / "effects.parquet", table)
    n_verified = int(table["verified"].sum())
    summary = {
        "task": task,
        "layer": layer,
        **summary_of(table),
        "seconds": {
            "estimate": estimated - started,
            "verify": ended - estimated,
            "per_discovery": (ended - started) / n_verified if n_verified else None,
        },
        "without_estimate": [opened.names[c] for c, row in zip(class_ids, effects, strict=True) if np.isnan(row).any()],
        "provenance": provenance.record(),
    }
    write_json(output / "atlas.json", summary)
    return summary


def _verified(verifier: Verifier, rankings: Rankings) -> dict[Pair, dict[str, Any]]:
    """Measure all proposed pairs, and those again that are proven."""
    rows: dict[Pair, dict[str, Any]] = {}
    estimates, name = rankings.estimates, verifier.runner.task.name
    proposed = set(rankings.first[RANKINGS[0]])
    with progress_bar(len(rankings.pairs), f"{name}: verified pairs", "pairs") as bar:
        for pair in rankings.pairs:
            # The dose that turns half of the targets is of interest where the atlas proposes something.
            doses = verifier.settings.doses if pair in proposed else []
            effect = verifier.measured(pair, estimates[pair], doses)
            if effect is not None:
                rows[pair] = verifier.row(effect, estimates[pair])
            bar.update()
    proven = [pair for pair in judged(rows, estimates) if rows[pair]["verified"]]
    with progress_bar(len(proven), f"{name}: pairs on other pictures", "pairs") as bar:
        for pair in proven:
            effect = verifier.measured(pair, estimates[pair], [], again=True)
            if effect is not None:
                again = verifier.row(effect, estimates[pair])
                rows[pair] |= {f"effect_again{end}": again[f"effect{end}"] for end in ("", "_low", "_high")}
                rows[pair]["p_again"] = again["p"]
            bar.update()
    return rows


def _table(rankings: Rankings, rows: dict[Pair, dict[str, Any]], names: dict[int, str]) -> pl.DataFrame:
    """One row a pair, the largest estimates of each class first."""
    ranks = {name: {pair: rank for rank, pair in enumerate(first)} for name, first in rankings.first.items()}
    found = []
    for pair, estimate in rankings.estimates.items():
        own = {f"rank_{name}": ranks[name].get(pair) for name in RANKINGS}
        about = {"class_id": pair[0], "class_name": names[pair[0]], "latent": pair[1], "estimate": estimate}
        found.append({**about, **own, **rows.get(pair, {})})
    table = pl.DataFrame(found, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))
    low, high = pl.col("effect_again_low"), pl.col("effect_again_high")
    same = pl.when(pl.col("estimate") < 0).then(high < 0).otherwise(low > 0)
    table = table.with_columns(replicates=same & (pl.col("p_again") <= 0.05))
    return table.sort("class_id", pl.col("estimate").abs(), "latent", descending=[False, True, False])


def verified_latents(table: pl.DataFrame, class_id: int) -> Sequence[int]:
    """Latents of a class that are proven and show their effect again, the largest effects first."""
    rows = table.filter(pl.col("class_id") == class_id, pl.col("replicates"))
    return rows.sort(pl.col("effect").abs(), descending=True)["latent"].to_list()
