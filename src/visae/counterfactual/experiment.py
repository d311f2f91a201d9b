"""What dictionaries have to do with single causes: measured on pairs, compared, and proven by edits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import CounterfactualSettings
from visae.counterfactual.changes import PairTokens, measured_changes
from visae.counterfactual.compared import UNTRAINED, Compared, beside, codes_a_token, opened_saes
from visae.counterfactual.editing import EDITS_SCHEMA, Plan, chosen_latents, edited_rows, own_and_other_effects
from visae.counterfactual.readouts import Reader, learned, readouts_facts
from visae.counterfactual.selective import Responses, Verdicts, resampled_share, verdicts
from visae.counterfactual.tables import (
    CHANGES_SCHEMA,
    SHARES_SCHEMA,
    changes_table,
    network_facts,
    selectivity_of,
    shares_of,
    shares_rows,
)
from visae.data.paired import Pair
from visae.data.pairs import read_cause_values, read_pairs
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.experiments.opened import FIT, MEASURED
from visae.files import write_json, write_table
from visae.heads.tokens import open_store
from visae.intervals import resampling_weights
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder
from visae.vision.model import VisionModel, load_model


@dataclass(frozen=True, kw_only=True)
class CounterfactualFiles:
    """What pairs are measured with.

    Attributes
    ----------
    manifest
        manifest.json of the activations of the pairs' data set, of the layer that the SAEs are of.
    index
        index.parquet of that data set.
    card
        model.json of the model.
    saes
        config.json of each SAE; the first is what the others are compared with.
    """

    manifest: str
    index: str
    card: str
    saes: list[str]

    def named(self) -> list[str]:
        """Paths of all files."""
        return [self.manifest, self.index, self.card, *self.saes]


def run_counterfactuals(
    files: CounterfactualFiles,
    settings: CounterfactualSettings,
    layer: int,
    output: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure dictionaries on counterfactual pairs, and edit the latents that are selective for a cause.

    A latent's response to a cause is how far its mean code of a picture moves with it, in units of its spread over
    scenes, over how far the network's mean activation moves in the same way. Latents are chosen on the pairs of split
    train that respond `ratio` times as much to one cause as to any other; those are selective that respond more to it
    than to every other on the pairs of split val too, at a false discovery rate of 5 %. Beside the study's SAEs stand
    raw neurons, principal components and untrained dictionaries, as sparse as the first SAE.

    Then the latents of each cause, chosen on train, are set to 0 in pictures of val, and linear probes say which causes
    the network's final tokens tell less of, beside as many random latents whose change is as long.

    Written into `output` are counterfactuals.parquet (latents by causes), dictionaries.parquet (shares of selective
    latents), editing.parquet (edited by read causes) and summary.json.

    Parameters
    ----------
    files
        The pairs' activations and the SAEs.
    settings
        Section `counterfactuals`.
    layer
        That the activations are of.
    output
        Folder.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What summary.json holds.

    Raises
    ------
    DataError
        If the data set has no pairs, or of a cause none in one of both splits, or nothing changes with it.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    pairs = read_pairs(files.index)
    causes = _causes(pairs, files.index)
    model = load_model(files.card, chosen)
    store = open_store(files.manifest, model.card, layer)
    seen, grid = model.card, model.card.layers[layer].grid
    fit, measured = (PairTokens(store, pairs, causes, split, seen, grid) for split in (FIT, MEASURED))
    saes = opened_saes(files.saes, store.d_model, chosen)
    reader = _reader(fit, model, layer, files.index, causes, settings, seed)
    study = _Study(fit, measured, causes, reader, settings, seed)
    for one in _dictionaries(saes, fit, settings, seed):
        study.add(one)
    tables = study.tables()
    for name, table in tables.items():
        write_table(output / f"{name}.parquet", table)
    summary = {
        "layer": layer,
        "causes": causes,
        "n_scenes": {split: len(tokens.scenes) for split, tokens in ((FIT, fit), (MEASURED, measured))},
        "network": study.network,
        "readouts": readouts_facts(reader, causes, tables["editing"]),
        "dictionaries": study.summaries,
        "provenance": provenance.record(),
    }
    write_json(output / "summary.json", summary)
    return summary


class _Study:
    """Measures one dictionary after the other, and keeps the rows of tables."""

    def __init__(
        self,
        fit: PairTokens,
        measured: PairTokens,
        causes: Sequence[str],
        reader: Reader,
        settings: CounterfactualSettings,
        seed: int,
    ) -> None:
        self.fit, self.measured, self.causes, self.reader = fit, measured, list(causes), reader
        self.settings, self.seed = settings, seed
        # One set of resamples for all, so that differences between dictionaries keep their pairing.
        self.weights = resampling_weights(len(measured.scenes), settings.bootstrap, seed)
        self.reference: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self.changes: list[pl.DataFrame] = []
        self.shares: list[dict[str, Any]] = []
        self.edits: list[dict[str, Any]] = []
        self.summaries: list[dict[str, Any]] = []
        self.network: list[dict[str, Any]] = []

    def add(self, one: Compared) -> None:
        """Measure, test and edit a dictionary."""
        n, settings = len(self.causes), self.settings
        of_fit = measured_changes(self.fit, one.dictionary)
        of_measured = measured_changes(self.measured, one.dictionary)
        units = of_fit.spread, of_fit.network_spread
        fit, measured = Responses.of(of_fit, *units, n), Responses.of(of_measured, *units, n)
        self._check(fit, measured)
        active = np.flatnonzero((of_fit.pictures >= settings.least_pictures) & (of_fit.spread > 0))
        ratio, permutations = settings.ratio, settings.permutations
        verdict = verdicts(fit, measured, active, ratio=ratio, permutations=permutations, seed=self.seed)
        resampled = resampled_share(measured, verdict, self.weights)
        self.reference = self.reference or (shares_of(verdict, n), resampled)
        about = {"dictionary": one.name, "kind": one.kind, "l0": of_fit.l0, "width": one.dictionary.width}
        rows = shares_rows(about, self.causes, verdict, resampled, self.reference)
        if one.kind == "study":
            pictures = of_fit.pictures
            self.changes.append(
                changes_table(one.name, self.causes, measured, of_measured, verdict, pictures, self.weights)
            )
        edits = [] if one.dictionary.is_transcoder else self._edits(one, fit, verdict)
        self.shares += rows
        self.edits += edits
        share = {name: rows[0][name] for name in ("n_active", "n_found", "n_again", "share", "share_low", "share_high")}
        self.summaries.append({"name": one.name, "kind": one.kind, **share, "edits": own_and_other_effects(edits)})
        self.network = network_facts(of_measured, of_fit.network_spread, self.causes)

    def _edits(self, one: Compared, fit: Responses, verdict: Verdicts) -> list[dict[str, Any]]:
        """Rows of editing.parquet; of untrained dictionaries only the first is edited, for time."""
        if one.kind == "untrained" and any(row["dictionary"].startswith(UNTRAINED) for row in self.edits):
            return []
        selectivity = selectivity_of(fit.means()[:, verdict.active], verdict.first)
        most, numbers = self.settings.most_latents, range(len(self.causes))
        chosen = {cause: chosen_latents(verdict, cause, selectivity, most) for cause in numbers}
        plain = verdict.active[~verdict.found]
        pool = plain if len(plain) >= most else verdict.active
        plan = Plan.of(self.settings, self.causes, self.seed)
        rows = edited_rows(self.measured, one.dictionary, self.reader, chosen, pool.tolist(), plan)
        return [{"dictionary": one.name, **row} for row in rows]

    def _check(self, fit: Responses, measured: Responses) -> None:
        """Raise DataError for a cause with which nothing changes."""
        for split, responses in ((FIT, fit), (MEASURED, measured)):
            for cause in np.flatnonzero(responses.without_change()).tolist():
                raise DataError(
                    f"counterfactuals: cause {self.causes[cause]}: split {split} has no pair of it in which the "
                    "network's activations differ; add pairs, or leave the cause out"
                )

    def tables(self) -> dict[str, pl.DataFrame]:
        """All tables by name."""
        return {
            "counterfactuals": pl.concat([pl.DataFrame(schema=CHANGES_SCHEMA), *self.changes]),
            "dictionaries": _without_nan(pl.DataFrame(self.shares, schema=SHARES_SCHEMA)),
            "editing": _without_nan(pl.DataFrame(self.edits, schema=EDITS_SCHEMA)),
        }


def _without_nan(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def _causes(pairs: Sequence[Pair], index: str) -> list[str]:
    """Causes of the pairs, and DataError where one of both splits has no pair of some cause."""
    causes = list(dict.fromkeys(pair.cause for pair in pairs))
    for split in (FIT, MEASURED):
        found = {pair.cause for pair in pairs if pair.split == split}
        if missing := [cause for cause in causes if cause not in found]:
            raise DataError(
                f"{index}: split {split} has no pair of {', '.join(missing)}; latents are found on {FIT} and measured "
                f"on {MEASURED}, so both need pairs of every cause"
            )
    return causes


def _reader(
    tokens: PairTokens,
    model: VisionModel,
    layer: int,
    index: str,
    causes: Sequence[str],
    settings: CounterfactualSettings,
    seed: int,
) -> Reader:
    """Probes of every cause."""
    table = read_cause_values(index)
    truth = {row[0]: row[1:] for row in table.select("image_id", *causes).iter_rows()}
    return learned(tokens, model, layer, truth, settings.c_values, seed=seed)


def _dictionaries(
    saes: dict[str, SparseAutoencoder], tokens: PairTokens, settings: CounterfactualSettings, seed: int
) -> Iterator[Compared]:
    """The study's SAEs, and what stands beside the first."""
    for name, sae in saes.items():
        yield Compared(name, "study", sae)
    first = next(iter(saes.values()))
    yield from beside(first, codes_a_token(first, tokens), tokens, settings.untrained, seed)
