"""The latents of which a class's set can be made: those that are verified, by the atlas or for the set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from visae.config.settings import AtlasSettings
from visae.discovery.choice import chosen_set, class_slopes, proposed
from visae.discovery.effects import read_effects
from visae.discovery.judge import judged
from visae.discovery.pairs import Pair
from visae.discovery.verify import Verifier
from visae.errors import DataError
from visae.experiments.opened import Opened
from visae.experiments.runner import Runner
from visae.progress import progress_bar


@dataclass(frozen=True)
class Candidates:
    """Of all classes.

    Attributes
    ----------
    supporting
        By class id: verified latents that support it, the largest effects first.
    claimed
        Pairs that were proposed: controls are drawn among the others.
    n_edited
        Pairs that were edited beside those of the atlas.
    """

    supporting: dict[int, list[int]]
    claimed: frozenset[Pair]
    n_edited: int

    def claimed_of(self, class_id: int) -> set[int]:
        """Latents that were proposed for a class."""
        return {latent for other, latent in self.claimed if other == class_id}


def candidates_of(effects: Path, found: Opened, runner: Runner, settings: AtlasSettings, seed: int) -> Candidates:
    """Verify latents that a set would be made of where the atlas has not edited them, all its pairs in the same test.

    The atlas edits the largest estimates of all classes, each for itself: of some classes few, and among them latents
    that lie beside what the class is read from.

    Parameters
    ----------
    effects
        effects.parquet of the atlas.
    runner
        Of a task that has looked at the measured split.

    Raises
    ------
    DataError
        If the table cannot be read, or has a class that the task does not have.
    """
    table = read_effects(effects)
    unknown = set(table["class_id"].to_list()) - set(found.task.names)
    if unknown:
        raise DataError(f"{effects}: it has classes {sorted(unknown)}, which {found.task.name} does not; make it again")
    estimates = _by_pair(table, "estimate")
    ranked = table.filter(pl.any_horizontal(pl.col("^rank_.*$").is_not_null()))
    measured = table.filter(pl.col("effect").is_not_null())
    kept = ("p", "effect", "effect_low", "effect_high")
    rows: dict[Pair, dict[str, Any]] = {
        pair: dict(zip(kept, values, strict=True))
        for pair, *values in zip(_by_pair(measured, "p"), *(measured[name].to_list() for name in kept), strict=True)
    }
    new = [pair for pair in _taken(found, settings) if pair not in rows and pair in estimates]
    claimed = frozenset([*_by_pair(ranked, "estimate"), *new])
    verifier = Verifier(runner, found.activity, settings, claimed, seed)
    with progress_bar(len(new), f"{found.task.name}: candidates for sets", "pairs") as bar:
        for pair in new:
            effect = verifier.measured(pair, estimates[pair], [])
            if effect is not None:
                row = verifier.row(effect, estimates[pair])
                rows[pair] = {name: row[name] for name in kept}
            bar.update()
    supporting: dict[int, list[int]] = {}
    for pair in sorted(judged(rows, estimates), key=lambda pair: (rows[pair]["effect"], pair)):
        if rows[pair]["verified"] and rows[pair]["effect"] < 0:
            supporting.setdefault(pair[0], []).append(pair[1])
    return Candidates(supporting, claimed, len(new))


def _taken(found: Opened, settings: AtlasSettings) -> list[Pair]:
    """Pairs of each class and the latents that its set would be made of, were all that support it verified."""
    pairs: list[Pair] = []
    sets = settings.sets
    if not sets.candidates:
        return pairs
    for number, about in enumerate(found.task.classes):
        slopes = class_slopes(found.selection, number, settings.pictures)
        if slopes is not None:
            would = chosen_set(slopes, proposed(found.sae, slopes, sets.proposed), sets.candidates, sets.scales[0])
            pairs += [(int(about["id"]), latent) for latent in (would.latents if would else ())]
    return pairs


def _by_pair(table: pl.DataFrame, column: str) -> dict[Pair, float]:
    """A column by class id and latent."""
    return {(class_id, latent): value for class_id, latent, value in table.select("class_id", "latent", column).rows()}
