"""One experiment: the latents of each class edited on a task, beside all controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from visae.arms.changes import Draws
from visae.arms.participants import edited_latents, participants
from visae.arms.targets import NOT_LEARNED, Manual, check_manual
from visae.config.interventions import MATCHED, SIZES
from visae.config.settings import InterventionSettings
from visae.device import chosen_device, described
from visae.edits.edit import active_values
from visae.experiments.doses import doses_table, natural_norm, respond, responses
from visae.experiments.examples import SCHEMA
from visae.experiments.files import ExperimentFiles
from visae.experiments.opened import FIT, MEASURED, Opened
from visae.experiments.runner import Runner
from visae.experiments.tables import arms_table, becomes_table, over_classes, significance, untrained_table
from visae.experiments.untrained import against_untrained, rank_tests
from visae.features.codes import with_kind
from visae.files import write_json, write_table
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.tasks.counts import INSERT, SUPPRESS, ClassCounts, Target


def run_experiment(
    task: str,
    files: ExperimentFiles,
    settings: InterventionSettings,
    layer: int,
    output: Path,
    *,
    manual: Manual | None = None,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Run arms, doses and untrained dictionaries on a task; write their tables and summary.json into `output`.

    One class at a time, in two ways. *Suppress*: its latents are set to each of `scales` times their largest values
    where the class is. *Insert*: they are set to `insert_scale` times their largest values where it is not, and
    controls have the length of that change alone. The network is resumed from `layer`. What the units are, which of
    them are edited and what is counted of them, each task says (`visae.tasks`); for all of them `target_change` is the
    share of the units that the edit is about whose answer changes, where a class is inserted to it, `other_change` the
    share of the others, and `selectivity` the difference of the two. Intervals (95 %) come from resampling pictures.

    arms.parquet has one row an edit, arm, size, scale and class, becomes.parquet what units turn into, examples.parquet
    some pictures, doses.parquet one row an arm, class and dose, untrained.parquet the effect of the class's latents
    and of those of every untrained dictionary.

    Parameters
    ----------
    task
        `segmentation`, `classification`, `zero_shot` or `readout`.
    files
        What they are run from.
    settings
        Section `interventions`.
    layer
        Whose output is edited.
    output
        Folder.
    manual
        Latents named by hand for some classes: an arm of their own.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What summary.json holds.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    found = Opened.of(task, files, settings, layer, chosen, seed)
    opened, sae, activity, selection = found.task, found.sae, found.activity, found.selection
    check_manual(manual or {}, task, files.readout, opened.names.values(), sae.width, activity)
    targets = selection.targets(selection.by)
    draws = participants(selection, targets, manual or {})
    opened.look(opened.store.image_ids(MEASURED))
    runner = Runner(opened, sae, settings, seed)
    counted = _arms(runner, targets, draws)
    measured = [counts for counts in counted if counts.way == SUPPRESS]
    rows = arms_table(opened, counted, edited_latents(draws), settings.bootstrap, seed)
    doses = _doses(runner, measured, draws, files.codes)
    ranked = against_untrained(runner, selection, measured)
    tests = significance(rows, rank_tests(ranked), max(settings.scales, key=abs))
    tables = {
        "arms": rows,
        "becomes": becomes_table(opened, counted),
        "examples": pl.DataFrame(runner.examples, schema=SCHEMA),
        "doses": doses,
        "untrained": untrained_table(ranked, opened.names),
    }
    for name, table in tables.items():
        write_table(output / f"{name}.parquet", with_kind(table, opened.tokens) if name in ("arms", "doses") else table)
    pictures = {counts.target.class_id: int((counts.n_target > 0).sum()) for counts in measured}
    by_class = {target.class_id: target for target in targets}
    summary = {
        "task": task,
        "tokens": opened.tokens,
        "answers": [c["name"] for c in opened.classes],
        "over_classes": over_classes(rows),
        "classes": [
            {
                "id": target.class_id,
                "name": target.class_name,
                "latents": list(target.latents),
                "chosen_by": selection.by,
                "score": target.score,
                "largest": [activity.largest[latent] for latent in target.latents],
                "pictures": pictures.get(target.class_id, 0),
                **opened.about(target),
                "arms_not_measurable": [
                    arm
                    for arm in settings.arms
                    if arm not in draws[target.class_id] and arm != f"latent_by_{selection.by}"
                ],
                **tests.get(target.class_id, {}),
            }
            for target in targets
        ],
        "not_measurable": [
            {"id": class_id, "name": name, "reason": opened.why_not(by_class.get(class_id), class_id)}
            for class_id, name in opened.names.items()
            if class_id not in pictures
        ]
        + [{**c, "reason": NOT_LEARNED} for c in opened.not_learned],
        "significant_share": sum(test["significant"] for test in tests.values()) / len(tests) if tests else None,
        "responses": responses(doses),
        "n_images": len(opened.measured),
        "layer": layer,
        "provenance": provenance.record(),
    }
    write_json(output / "summary.json", summary)
    return summary


def _arms(runner: Runner, targets: list[Target], draws: dict[int, Draws]) -> list[ClassCounts]:
    """Suppress and insert each class by every arm; classes that cannot be are left out."""
    settings, found = runner.settings, []
    ways = ((SUPPRESS, tuple(settings.scales), SIZES), (INSERT, (settings.insert_scale,), (MATCHED,)))
    with progress_bar(len(targets), f"{runner.task.name}: arms", "classes") as bar:
        for target in targets:
            for way, scales, sizes in ways:
                counts = runner.pictures(target, way)
                if len(counts.images) and (way == INSERT or runner.can_be_edited(counts)):
                    runner.run(counts, draws[target.class_id], scales, sizes, watch=runner.keep_examples(counts))
                    found.append(counts)
            bar.update()
    return found


def _doses(runner: Runner, classes: list[ClassCounts], draws: dict[int, Draws], codes: str) -> pl.DataFrame:
    """Run the doses of each class."""
    found = []
    if runner.settings.doses:
        store = runner.task.store
        limit = natural_norm(store, FIT, runner.task.tokens)
        observed = active_values(codes, store.image_ids(FIT), [counts.target.latents[0] for counts in classes])
        with progress_bar(len(classes), f"{runner.task.name}: doses", "classes") as bar:
            for counts in classes:
                found.append(respond(runner, counts.target, draws[counts.target.class_id], observed, limit))
                bar.update()
    return doses_table(runner.task, found, runner.settings.bootstrap, runner.seed)
