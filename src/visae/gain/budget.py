"""Discovery with the same budget for every dictionary: how many of its first pairs are verified by edits."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from visae.config.settings import AtlasSettings, GainSettings, InterventionSettings
from visae.discovery.judge import judged, leaves_out_zero
from visae.discovery.verify import Verifier
from visae.experiments.runner import Runner
from visae.experiments.tables import ALPHA
from visae.gain.candidates import Chooser, Dictionaries
from visae.progress import progress_bar
from visae.sae import SparseAutoencoder

DISCOVERIES: dict[str, Any] = {
    "kind": pl.String,
    "number": pl.Int32,
    "proposed": pl.Int64,
    "verified": pl.Int64,
    "replicated": pl.Int64,
    "effect": pl.Float64,
}
"""Columns of discoveries.parquet: one row a dictionary; `effect` is the mean size of what its pairs do to log odds."""


def discoveries(chooser: Chooser, dictionaries: Dictionaries, edits: InterventionSettings) -> pl.DataFrame:
    """Let each dictionary propose its first pairs by the estimate, and edit them.

    They are verified as the atlas does it: against random latents of the same dictionary whose change is as long, at a
    false discovery rate of 5 % over the dictionary's pairs, and then again on other pictures.
    """
    settings, rows = dictionaries.settings, []
    if settings.budget:
        of_each = list(dictionaries.each(settings.budget_draws))
        with progress_bar(len(of_each), f"{chooser.task.name}: discovery", "dictionaries") as bar:
            for (kind, number), dictionary in of_each:
                found = _of_dictionary(chooser, dictionary, settings, edits, dictionaries.seed)
                rows.append({"kind": kind, "number": number, **found})
                bar.update()
    return pl.DataFrame(rows, schema=DISCOVERIES)


def _of_dictionary(
    chooser: Chooser, dictionary: SparseAutoencoder, settings: GainSettings, edits: InterventionSettings, seed: int
) -> dict[str, Any]:
    activity = chooser.activity(dictionary)
    estimates = {pair: effect for pair, effect in chooser.estimates(dictionary).items() if pair[1] in activity.count}
    pairs = sorted(estimates, key=lambda pair: (-abs(estimates[pair]), pair))[: settings.budget]
    atlas = AtlasSettings(images=settings.budget_images, bootstrap=settings.bootstrap)
    runner = Runner(chooser.task, dictionary, edits, seed)
    verifier = Verifier(runner, activity, atlas, frozenset(pairs), seed)
    rows = {}
    for pair in pairs:
        effect = verifier.measured(pair, estimates[pair], [])
        if effect is not None:
            rows[pair] = verifier.row(effect, estimates[pair])
    verified = [pair for pair in judged(rows, estimates) if rows[pair]["verified"]]
    replicated = 0
    for pair in verified:
        again = verifier.measured(pair, estimates[pair], [], again=True)
        if again is not None:
            row = verifier.row(again, estimates[pair])
            replicated += leaves_out_zero(row, estimates[pair]) and row["p"] <= ALPHA
    size = float(np.mean([abs(row["effect"]) for row in rows.values()])) if rows else None
    return {"proposed": len(pairs), "verified": len(verified), "replicated": replicated, "effect": size}
