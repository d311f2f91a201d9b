"""What latents do together: the synergy of pairs, and groups of latents that stand in for each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from visae.config.interactions import InteractionSettings
from visae.config.settings import InterventionSettings
from visae.device import chosen_device, described
from visae.discovery.effects import read_atlas, read_effects
from visae.discovery.redundancy import Redundancy
from visae.discovery.together import TESTABLE, Member, Pairs
from visae.errors import DataError
from visae.experiments.files import ExperimentFiles
from visae.experiments.opened import MEASURED, Opened
from visae.experiments.runner import Runner
from visae.experiments.tables import ALPHA, measured_columns
from visae.features.resampling import benjamini_hochberg
from visae.files import write_json, write_table
from visae.progress import progress_bar
from visae.provenance import Provenance

MORE, LESS = "more", "less"

SCHEMA: dict[str, Any] = {
    "class_id": pl.Int32,
    "class_name": pl.String,
    "latent": pl.Int32,
    "other_class_id": pl.Int32,
    "other": pl.Int32,
    **measured_columns(("effect", "effect_other", "together", "synergy")),
    "p": pl.Float64,
    "q": pl.Float64,
    "control": pl.Float64,
    "p_above": pl.Float64,
    "q_above": pl.Float64,
    "significant": pl.Boolean,
    "than_sum": pl.String,
    "p_control": pl.Float64,
    "q_control": pl.Float64,
    "n_together": pl.Int64,
    "n_units": pl.Int64,
    "n_images": pl.Int64,
}
"""Columns of interactions.parquet: one row a pair of latents and class in which it is measured; null if untested."""


@dataclass(frozen=True, kw_only=True)
class InteractionFiles(ExperimentFiles):
    """Those of an experiment, and of the atlas whose latents are edited together.

    Attributes
    ----------
    effects, atlas
        effects.parquet and atlas.json of the same task and SAE.
    """

    effects: str
    atlas: str

    def named(self) -> list[str]:
        """Paths of the files that there are and that summaries keep the hash of."""
        return [*super().named(), self.effects]


def run_interactions(
    task: str,
    files: InteractionFiles,
    settings: InteractionSettings,
    layer: int,
    output: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Edit latents of an atlas together, and write interactions.parquet and interactions.json into `output`.

    The latents with the largest verified effects are switched off alone and in pairs, on pictures of the half of split
    val on which the atlas had not verified them: the synergy of a pair is the change of the class's log odds with both
    off minus the sum of the changes with each off. Beside each pair two random latents move every patch as far, and an
    interaction is significant where it is larger than theirs. Then groups are looked for among latents that do nothing
    alone: chosen on the atlas's first half of split val by what they do together beyond the sum, and measured on the
    other beside random groups as long.

    Parameters
    ----------
    task
        A task of the study.
    files
        What it is run from.
    settings
        Section `interactions`.
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
        What interactions.json holds.

    Raises
    ------
    DataError
        If the atlas is of another task, layer or SAE, or its files cannot be read.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    atlas, effects = read_atlas(files.atlas, (files.sae, files.codes)), read_effects(files.effects)
    if (atlas["task"], atlas["layer"]) != (task, layer):
        raise DataError(
            f"{files.atlas}: an atlas of {atlas['task']}, layer {atlas['layer']}, and not of {task}, layer {layer}; "
            "give that of the same task and layer"
        )
    started = time.monotonic()
    edits = InterventionSettings(batch_size=settings.batch_size, bootstrap=settings.bootstrap)
    found = Opened.of(task, files, edits, layer, chosen, seed)
    found.task.look(found.task.store.image_ids(MEASURED))
    runner = Runner(found.task, found.sae, edits, seed)
    # Halves of the measured split are those that the atlas had.
    halves = atlas["provenance"]["settings"]["images"], atlas["provenance"]["seed"]
    pairs = Pairs(runner, found.activity, settings, halves, seed)
    rows, unmeasured = _pairs(pairs, members_of(effects, settings.latents), effects)
    paired = time.monotonic()
    table = judged(rows, found.task.names)
    write_table(output / "interactions.parquet", table)
    redundancy = Redundancy(runner, found, settings, halves, seed)
    groups = redundancy.groups(effects, atlas["provenance"]["settings"]["pictures"])
    summary = {
        "task": task,
        "layer": layer,
        **summary_of(table),
        "n_groups": len(groups),
        "n_redundant": sum(group["redundant"] for group in groups),
        "groups": groups,
        "not_measured": unmeasured,
        "seconds": {"pairs": paired - started, "groups": time.monotonic() - paired},
        "provenance": provenance.record(),
    }
    write_json(output / "interactions.json", summary)
    return summary


def members_of(effects: pl.DataFrame, most: int) -> list[Member]:
    """Latents with the largest verified effects, each in the class to which it does most, by class.

    Parameters
    ----------
    effects
        effects.parquet.
    """
    size = pl.col("effect").abs()
    best = (
        effects.filter("verified")
        .sort(size, "class_id", "latent", descending=[True, False, False])
        .unique("latent", keep="first", maintain_order=True)
        .head(most)
        .sort("class_id", size, "latent", descending=[False, True, False])
    )
    return [Member(*row) for row in best.select("class_id", "latent").iter_rows()]


def _pairs(
    pairs: Pairs, members: Sequence[Member], effects: pl.DataFrame
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of all pairs, and the classes in which none can be measured."""
    classes = dict.fromkeys(member.class_id for member in members)
    task = pairs.runner.task
    rows: list[dict[str, Any]] = []
    unmeasured = []
    with progress_bar(len(classes), f"{task.name}: pairs of latents", "classes") as bar:
        for class_id in classes:
            verified = effects.filter(pl.col("class_id") == class_id, "verified")["latent"].to_list()
            found, why_not = pairs.of_class(class_id, members, verified)
            rows += found
            if why_not:
                unmeasured.append({"class_name": task.names[class_id], "why": why_not})
            bar.update()
    return rows, unmeasured


def judged(rows: Sequence[dict[str, Any]], names: dict[int, str]) -> pl.DataFrame:
    """Table of pairs, with the false discovery rates over all of them and the verdicts.

    A synergy is significant where its false discovery rates are at most ALPHA, that it is not 0 and that it is larger
    than that of random latents as long, and where its interval leaves out 0. Where both latents move the class the
    same way, `than_sum` says whether together they do more than the sum, so that each stands in for the other, or
    less, so that each alone already does what both do.
    """
    table = pl.DataFrame([{**row, "class_name": names[row["class_id"]]} for row in rows], schema=SCHEMA)
    table = table.with_columns(
        pl.Series(f"q{end}", benjamini_hochberg(table[f"p{end}"].fill_null(np.nan).to_numpy()), dtype=pl.Float64)
        for end in ("", "_above", "_control")
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    leaves_out_zero = (pl.col("synergy_low") > 0) | (pl.col("synergy_high") < 0)
    total = pl.col("effect") + pl.col("effect_other")
    same_way = pl.col("effect") * pl.col("effect_other") > 0
    is_found = pl.max_horizontal("q", "q_above") <= ALPHA
    table = table.with_columns(significant=pl.col("q").is_not_null() & is_found & leaves_out_zero)
    return table.with_columns(
        than_sum=pl.when(pl.col("significant") & same_way).then(
            pl.when(pl.col("synergy") * total > 0).then(pl.lit(MORE)).otherwise(pl.lit(LESS))
        )
    )


def summary_of(table: pl.DataFrame) -> dict[str, Any]:
    """How many pairs interact, how many random ones seem to, and the strongest pairs.

    Parameters
    ----------
    table
        interactions.parquet.
    """
    tested = table.filter(pl.col("p").is_not_null())
    significant = tested.filter("significant")
    strongest = significant.sort(pl.col("synergy").abs(), descending=True).head(_NAMED)
    latents = {(row["other_class_id"], row["other"]) for row in table.select("other_class_id", "other").to_dicts()}
    latents |= {(row["class_id"], row["latent"]) for row in table.select("class_id", "latent").to_dicts()}
    kept = ["class_name", "latent", "other", "effect", "effect_other", "together"]
    kept += ["synergy", "synergy_low", "synergy_high", "q", "than_sum"]
    return {
        "n_latents": len({latent for _, latent in latents}),
        "n_pairs": len(table),
        "n_tested": len(tested),
        "n_not_zero": int((tested["q"] <= ALPHA).sum()),
        "n_not_zero_at_random": int((tested["q_control"] <= ALPHA).sum()),
        "n_significant": len(significant),
        "n_more": int((significant["than_sum"] == MORE).sum()),
        "n_less": int((significant["than_sum"] == LESS).sum()),
        "smallest_pictures": TESTABLE,
        "median_size": {
            "pairs": _median_size(tested["synergy"]),
            "random": _median_size(tested["control"]),
        },
        "strongest": strongest.select(kept).to_dicts(),
    }


_NAMED = 10


def _median_size(values: pl.Series) -> float | None:
    median = values.abs().median()
    return None if median is None else float(median)  # type: ignore[arg-type]
