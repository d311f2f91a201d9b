"""What an SAE adds on a task: its latents beside those that other dictionaries choose in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from visae.config.gain import Rule
from visae.config.settings import GainSettings, InterventionSettings
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.experiments.files import ExperimentFiles
from visae.experiments.opened import FIT, MEASURED, Opened
from visae.experiments.runner import Runner
from visae.experiments.tables import measured_columns
from visae.files import write_json, write_table
from visae.gain.budget import discoveries
from visae.gain.candidates import Chooser, Chosen, Dictionaries, Named
from visae.gain.kinds import BESIDE, TESTED
from visae.gain.lengths import first_halves
from visae.gain.measure import Candidate, Held
from visae.gain.ranks import MEASURES, medians, over_classes, ranked, yields
from visae.intervals import interval, resampling_weights
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.tasks.counts import Shares

SCHEMA: dict[str, Any] = {
    "class_id": pl.Int32,
    "class_name": pl.String,
    "rule": pl.String,
    "kind": pl.String,
    "number": pl.Int32,
    "latent": pl.Int32,
    "score": pl.Float64,
    **measured_columns(("length_for_half",)),
    "q_untrained": pl.Float64,
    "q_frozen": pl.Float64,
    "equal_length": pl.Float64,
    "target_change": pl.Float64,
    "other_change": pl.Float64,
    "selectivity": pl.Float64,
    "natural_length": pl.Float64,
    "natural_target_change": pl.Float64,
    "natural_other_change": pl.Float64,
    "natural_selectivity": pl.Float64,
    "n_units": pl.Int64,
    "n_images": pl.Int64,
}
"""Columns of gain.parquet: one row a class, rule and dictionary; lengths in mean norms of tokens.

q are of the tested dictionary's length for half; see `ranked`.
"""

# Pictures whose tokens are held at once: classes are measured so many at a time that there are about so many.
_HELD_PICTURES = 256
# Kinds among which the tested dictionary is ranked.
_EXCHANGED = (TESTED, *BESIDE)
_NEVER = 1e9


def run_gain(
    task: str,
    files: ExperimentFiles,
    compared: Path,
    settings: GainSettings,
    layer: int,
    output: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Compare an SAE with dictionaries that learned less, and write gain.parquet, discoveries.parquet and gain.json.

    Beside the SAE stand untrained dictionaries, dictionaries with a frozen random decoder and a trained encoder, PCA,
    k-means and raw neurons. Each chooses one latent for a class by the same rule on the same tokens of split train. On
    pictures of split val patches are then moved down the latent's direction. Measured are the shortest length at which
    half of the targets turn; selectivity at one length for all, the shortest of those; and selectivity where each
    latent is set to minus its own largest value. The p-value of a class is the SAE's rank among all dictionaries of a
    kind and itself; what is found holds at a false discovery rate over the classes.

    Parameters
    ----------
    task
        A task of the study.
    files
        What it is run from; as for an experiment.
    compared
        manifest.json of the dictionaries that were trained and fitted to compare with (command `compared`).
    settings
        Section `gain`.
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
        What gain.json holds.

    Raises
    ------
    DataError
        If no class can be measured.
    StoreError
        If the store lacks one of both splits.
    """
    where, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, [*files.named(), str(compared)], seed, described(where))
    edits = InterventionSettings(batch_size=settings.batch_size, bootstrap=settings.bootstrap)
    found = Opened.of(task, files, edits, layer, where, seed)
    if not len(found.selection.sample.rows):
        raise DataError(f"{files.manifest}: split {FIT} has no token of a class of {task}; latents are chosen on them")
    chooser = Chooser(found.selection, settings, seed)
    dictionaries = Dictionaries(found.selection, settings, str(compared), seed)
    found.task.look(found.task.store.image_ids(MEASURED))
    runner = Runner(found.task, found.sae, edits, seed)
    table = compared_table(runner, chooser, dictionaries)
    if not len(table):
        raise DataError(
            f"{files.manifest}: no class of {task} has a latent of the SAE and, on split {MEASURED}, a picture to edit"
        )
    tests, found_pairs = ranked(table), discoveries(chooser, dictionaries, edits)
    write_table(output / "gain.parquet", with_rates(table, tests))
    write_table(output / "gain_tests.parquet", tests)
    write_table(output / "discoveries.parquet", found_pairs)
    measured = set(table["class_name"])
    summary = {
        "task": task,
        "layer": layer,
        "rules": chooser.rules,
        "over_classes": over_classes(tests),
        "medians": medians(table),
        "discoveries": yields(found_pairs),
        "mean_norm": chooser.norm,
        "not_measurable": [name for name in found.task.names.values() if name not in measured],
        "provenance": provenance.record(),
    }
    write_json(output / "gain.json", summary)
    return summary


def compared_table(runner: Runner, chooser: Chooser, dictionaries: Dictionaries) -> pl.DataFrame:
    """Measure every dictionary on every class; the runner's task has looked at the measured split."""
    comparison, rows = _Comparison(runner, chooser, dictionaries), []
    for held in comparison.blocks():
        rows += comparison.rows_of(held)
    order = {rule: number for number, rule in enumerate(chooser.rules)}
    table = pl.DataFrame(rows, schema=SCHEMA).with_columns(
        pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64))
    )
    return table.sort(pl.col("rule").replace_strict(order, return_dtype=pl.Int8), "class_id", maintain_order=True)


def with_rates(table: pl.DataFrame, tests: pl.DataFrame) -> pl.DataFrame:
    """Add the corrected p-values of lengths to the tested dictionary's rows."""
    for kind in BESIDE:
        rates = tests.filter(kind=kind, measure=MEASURES[0]).select(
            "rule", "class_id", pl.lit(TESTED).alias("kind"), pl.col("q").alias(f"q_{kind}")
        )
        table = table.drop(f"q_{kind}").join(rates, on=["rule", "class_id", "kind"], how="left", maintain_order="left")
    return table.select(*SCHEMA)


class _Comparison:
    """All dictionaries on some classes at a time."""

    def __init__(self, runner: Runner, chooser: Chooser, dictionaries: Dictionaries) -> None:
        self.runner, self.chooser, self.dictionaries = runner, chooser, dictionaries
        self.settings = dictionaries.settings
        self.chosen: dict[Named, dict[Rule, dict[int, Chosen]]] = {}

    def blocks(self) -> Iterator[dict[int, Held]]:
        """Classes with their measured pictures, by class id, so many at a time as are held at once."""
        block: dict[int, Held] = {}
        for class_id in self.runner.task.names:
            held = Held.of(self.runner, class_id, self.settings.images)
            if held is not None:
                block[class_id] = held
            if sum(len(one.counts.images) for one in block.values()) >= _HELD_PICTURES:
                yield block
                block = {}
        if block:
            yield block

    def rows_of(self, held: Mapping[int, Held]) -> list[dict[str, Any]]:
        """Rows of some classes."""
        candidates = self._candidates(held)
        rows, task = [], self.runner.task.name
        with progress_bar(len(held), f"{task}: dictionaries beside each other", "classes") as bar:
            for class_id, one in held.items():
                for rule in self.chooser.rules:
                    own = {
                        name: found[rule, class_id] for name, found in candidates.items() if (rule, class_id) in found
                    }
                    if (TESTED, 0) in own:
                        rows += self._of_class(one, rule, own, list(candidates))
                bar.update()
        return rows

    def _candidates(self, held: Mapping[int, Held]) -> dict[Named, dict[tuple[Rule, int], Candidate]]:
        """What each dictionary chooses, by rule and class id."""
        found: dict[Named, dict[tuple[Rule, int], Candidate]] = {}
        with progress_bar(self.dictionaries.count, f"{self.runner.task.name}: choices", "dictionaries") as bar:
            for name, dictionary in self.dictionaries.each():
                if name not in self.chosen:
                    self.chosen[name] = self.chooser.choose(dictionary)
                by_rule, found[name] = self.chosen[name], {}
                for class_id, one in held.items():
                    rules = [rule for rule in by_rule if class_id in by_rule[rule]]
                    made = one.candidates(dictionary, [by_rule[rule][class_id] for rule in rules])
                    found[name] |= {(rule, class_id): each for rule, each in zip(rules, made, strict=True)}
                bar.update()
        return found

    def _of_class(
        self, held: Held, rule: Rule, own: Mapping[Named, Candidate], everyone: Sequence[Named]
    ) -> list[dict[str, Any]]:
        """Rows of a class and rule; dictionaries without a latent for it have one too, that says so."""
        norm, target = self.chooser.norm, held.counts.target
        by_name = {f"{kind} {number}": each for (kind, number), each in own.items()}
        halves = held.halves(by_name, [norm * length for length in self.settings.lengths])
        equal = self._equal_length(halves, everyone)
        same = held.at(by_name, dict.fromkeys(by_name, equal))
        natural = held.edited({name: (each.chosen.vector, each.natural) for name, each in by_name.items()})
        held.forget()
        low, high = self._interval(held, own[TESTED, 0])
        about = {
            "class_id": target.class_id,
            "class_name": target.class_name,
            "rule": rule,
            "equal_length": equal / norm,
        }
        about |= {"n_units": int(held.counts.n_target.sum()), "n_images": int((held.counts.n_target > 0).sum())}
        rows = []
        for kind, number in everyone:
            name, row = f"{kind} {number}", {**about, "kind": kind, "number": number}
            if name in by_name:
                each = by_name[name]
                row |= {"latent": each.chosen.latent, "score": each.chosen.score}
                row |= {"length_for_half": halves[name] / norm, "natural_length": each.natural_length / norm}
                row |= self._shares(same[name], "")
                if each.chosen.largest > 0:
                    row |= self._shares(natural[name], "natural_")
            if kind == TESTED:
                row |= {"length_for_half_low": low, "length_for_half_high": high}
            rows.append(row)
        return rows

    def _shares(self, shares: Shares, prefix: str) -> dict[str, float]:
        """Shares of an edit; selectivity is the measure by which the task judges suppression."""
        found = {name: shares[name] for name in ("target_change", "other_change")}
        found["selectivity"] = shares[self.runner.task.effect["suppress"]]
        return {f"{prefix}{name}": float(value) for name, value in found.items()}

    def _equal_length(self, halves: Mapping[str, float], everyone: Sequence[Named]) -> float:
        """One length for all: the shortest of theirs, of the tested dictionary or of any that it is ranked among.

        Were it always the tested one's own, that one would not be treated as the others are, and its rank would be no
        test. At longer ones most dictionaries turn everything.
        """
        counted = [halves.get(f"{kind} {number}", np.inf) for kind, number in everyone if kind in _EXCHANGED]
        return min(*counted, self.chooser.norm * self.settings.lengths[-1])

    def _interval(self, held: Held, tested: Candidate) -> tuple[float, float]:
        """Of the tested dictionary's length for half, from resampled pictures; infinite where some never turn half."""
        lengths, bootstrap = self.settings.lengths, self.settings.bootstrap
        weights = resampling_weights(len(self.runner.task.measured), bootstrap, self.runner.seed)
        norm = self.chooser.norm
        turns = held.resampled_turns(tested, [norm * length for length in lengths], weights)
        defined = turns[~np.isnan(turns).any(axis=1)]
        halves = first_halves(lengths, defined)
        # A length that is never reached has no number; quantiles need one that is longer than all.
        low, high = interval(np.minimum(halves, _NEVER))
        return tuple(np.inf if bound > _NEVER / 10 else bound for bound in (low, high))  # type: ignore[return-value]
